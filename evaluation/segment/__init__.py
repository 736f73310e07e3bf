"""`glus segment`: a video of the user's own in, masks and an overlay out.

Imports `predict`.
"""
