"""All expressions of a video together, frame by frame; prompts and their shared prefix.

Imports `model`.
"""
