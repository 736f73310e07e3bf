"""Slots of the sample plan -> batches: conversations, token ids, frames, masks.

Imports `raw`, `shards` and `sampling`.
"""
