"""Schemas: workloads."""

DEFINITIONS = """
"""
