"""The optimiser step: DeepSpeed ZeRO or plain torch, over the same micro-batches.

Imports `common` and `model`; the trainer chooses one.
"""
