"""Schemas: core."""

DEFINITIONS = """
"""
