"""Doors to podwire's own servers: the agent's local socket."""
