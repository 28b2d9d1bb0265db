"""Addresses of pods: which prefix a node has, and which address of it a pod."""
