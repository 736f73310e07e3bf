"""Inference over a video: all expressions together, frame by frame; their prompts.

Imports `common` and `model`.
"""
