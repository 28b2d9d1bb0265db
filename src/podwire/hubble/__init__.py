"""Flows: the way up, from the kernel's ring buffer to whoever asks.

read → decode → enrich → store → serve. Up to the store everything is arrays; a flow becomes a
message only when somebody asked for that row.
"""
