"""Cluster DNS: `zone` knows the answers (pure, over the cluster's objects), `server` speaks the protocol."""
