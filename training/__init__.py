"""Trainer, ZeRO-3 engine, checkpoints and tracking over batches and the model."""
