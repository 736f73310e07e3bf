"""Checkpoints: written atomically, verified by digests, kept or removed, resumed from.

Imports the engine's interface only.
"""
