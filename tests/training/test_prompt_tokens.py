"""Frames and tokens that a micro-batch takes, against numbers counted by hand."""

from dataclasses import replace

from glus.model.model_config import ModelConfig, SegmenterConfig, VisionConfig
from glus.training.metrics.prompt_tokens import READINGS, Shown

VIDEOLISA = ModelConfig(
    "videolisa", vision=VisionConfig(image_size=336, pool=1), segmenter=SegmenterConfig(kind="sam1")
)


def test_prompts_of_glus_share_the_context_and_the_first_query_frame():
    shown, glus = Shown(context=4, queries=4), READINGS["glus"]
    assert glus.tokens(ModelConfig(), shown, 2, 6) == 2 * (5 * 64 + 55) + 6 * (3 * 64 + 95)
    assert glus.tokens(ModelConfig(share_video_tokens=False), shown, 2, 6) == 6 * (8 * 64 + 150)
    assert glus.frames(shown) == 8


def test_prompts_of_a_video_share_videolisas_tokens():
    shown = Shown(context=32, queries=4)
    tokens = READINGS["videolisa"].tokens(VIDEOLISA, shown, 1, 8)
    assert tokens == 32 + 4 * 576 + 8 * 60
    # The reference reads 2,336 video tokens for every expression.
    assert tokens / (8 * (2336 + 60)) < 0.15
    assert READINGS["videolisa"].frames(shown) == 32
    alone = replace(VIDEOLISA, share_video_tokens=False)
    assert READINGS["videolisa"].tokens(alone, shown, 1, 8) == 8 * (32 + 4 * 576 + 60)
