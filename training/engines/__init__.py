"""The optimizer step: DeepSpeed ZeRO or plain torch, over the same micro-batches.

Imports `common`, `model`, and the contrastive loss, ranks and run config of `training`; the trainer chooses one.
"""
