"""Scores -> benchmark metrics with intervals, files, server archives.

Imports `score`.
"""
