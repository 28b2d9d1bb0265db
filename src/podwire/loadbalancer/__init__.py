"""Services and endpoint slices to frontends and backends."""
