"""One module a command of `glus` that is short enough to need no room of its own.

Imports every folder.
"""
