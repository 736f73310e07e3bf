"""A video of the user's own in, masks and an overlay out: `glus segment`, and GlusPredictor from Python.

Imports `predict`.
"""
