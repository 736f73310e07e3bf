"""One reader a dataset, listed in `table.py`.

Imports `raw` and `images`.
"""
