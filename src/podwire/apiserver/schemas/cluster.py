"""Schemas: cluster."""

DEFINITIONS = """
"""
