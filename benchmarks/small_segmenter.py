"""The SAM 2 of the benchmarks that measure something else."""

from glus.model.model_config import SegmenterConfig

SMALL_SEGMENTER = SegmenterConfig(
    image_size=64,
    embed_dim=8,
    heads=1,
    stages=(1, 1, 2, 1),
    global_attention_blocks=(3,),
    window_pos_embed_size=(4, 4),
    window_spec=(8, 4, 4, 2),
    hidden_dim=32,
    memory_dim=16,
    memory_layers=1,
    memory_feedforward=32,
    memory_fuser_layers=1,
)
