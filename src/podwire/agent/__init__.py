"""The agent: one process per node. `wiring` is the walk, top to bottom."""
