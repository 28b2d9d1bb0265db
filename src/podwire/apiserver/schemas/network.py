"""Schemas: network."""

DEFINITIONS = """
"""
