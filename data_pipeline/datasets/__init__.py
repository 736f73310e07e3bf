"""One reader a dataset, listed in `table.py`.

Imports `raw` only.
"""
