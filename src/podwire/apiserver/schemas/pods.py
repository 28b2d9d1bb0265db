"""Schemas: pods."""

DEFINITIONS = """
"""
