"""Checkpoints: written atomically, verified by digests, kept or removed, resumed from.

Imports `common`, the weights files of `model`, and the run config and ranks of `training`; no engine and no trainer.
"""
