"""Starts the ranks of a training, forwards signals, decides what follows a failure.

Imports `training`.
"""
