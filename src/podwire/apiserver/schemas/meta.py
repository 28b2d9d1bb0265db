"""Schemas: meta."""

DEFINITIONS = """
"""
