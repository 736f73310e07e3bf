"""What every folder may use: the base of all errors, and one way each to open, read, name, lock and hide things.

Imports nothing of ours, and no library that takes long to import.
"""
