"""A key frame selector's scores of all frames -> each expression's key frame, as a file that evaluation reads.

Imports `predict` and `results`.
"""
