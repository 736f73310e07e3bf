"""The language half of every method: vision tower, projector, language model, packed rows, shared prefixes.

Imports `common` and `model`.
"""
