"""Typed configs: YAML file and dotted overrides -> frozen dataclasses.

Imports `common`.
"""
