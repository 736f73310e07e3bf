"""Frames and tokens that a micro-batch takes, against numbers counted by hand."""

from dataclasses import replace

from glus.model.model_config import ModelConfig, SegmenterConfig, VisionConfig
from glus.training.metrics.prompt_tokens import READINGS, Shown

VIDEOLISA = ModelConfig(
    "videolisa", vision=VisionConfig(image_size=336, pool=1), segmenter=SegmenterConfig(kind="sam1")
)


def test_each_prompt_of_glus_holds_every_frame():
    shown = Shown(videos=2, context=4, queries=4, expressions=6, text=6 * (8 + 150))
    assert READINGS["glus"].tokens(ModelConfig(), shown) == 6 * (8 * 64 + 150)
    assert READINGS["glus"].frames(shown) == 8


def test_prompts_of_a_video_share_videolisas_tokens():
    shown = Shown(videos=1, context=32, queries=4, expressions=8, text=8 * (1 + 60))
    tokens = READINGS["videolisa"].tokens(VIDEOLISA, shown)
    assert tokens == 32 + 4 * 576 + 8 * 60
    # The reference reads 2,336 video tokens for every expression.
    assert tokens / (8 * (2336 + 60)) < 0.15
    assert READINGS["videolisa"].frames(shown) == 32
    alone = replace(VIDEOLISA, share_video_tokens=False)
    assert READINGS["videolisa"].tokens(alone, shown) == 8 * (32 + 4 * 576 + 60)
