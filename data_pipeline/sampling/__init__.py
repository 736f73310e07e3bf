"""Which videos, frames and expressions meet at a step: pure functions of (seed, step, slot).

Imports `shards`, and from `batches` the templates that it draws.
"""
