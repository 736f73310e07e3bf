"""Masks on disk -> J and F of each expression, and the text control.

Imports `data_pipeline` only; no torch.
"""
