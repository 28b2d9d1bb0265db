"""Schemas: extensions."""

DEFINITIONS = """
"""
