"""Inference over a video: all expressions together, frame by frame; prompts and their shared prefix.

Imports `common` and `model`.
"""
