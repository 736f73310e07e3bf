"""Released weights: names, files, sizes; loaded into a model and written back.

Imports `common` and `model`.
"""
