"""What ends a run early: signals, a stop file, a hang, a loss that is not finite.

Imports `common`.
"""
