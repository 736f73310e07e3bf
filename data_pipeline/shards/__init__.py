"""Video records -> WebDataset tars with an index, by Ray; and random access to them.

Imports `raw` and `datasets`.
"""
