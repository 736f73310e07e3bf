"""HTML pages: one evaluation, several side by side, runs compared.

Imports `results` and `score`.
"""
