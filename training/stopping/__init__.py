"""What ends a run early: signals, a stop file, a hang, a loss that is not finite.

Imports `common`, and the ranks and run config of `training`.
"""
