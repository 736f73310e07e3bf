"""SAM 1 through transformers' classes, prompted by [SEG] states frame by frame.

Imports `common` and `model`.
"""
