"""The selector's configs: they parse, say what was published, and fit the GLUS that they start from."""

from dataclasses import replace
from pathlib import Path

import pytest

from glus.launch.config.configuration import load_config
from glus.model.model_config import ModelConfig, SegmenterConfig
from glus.training.run_config import RunConfig

CONFIGS = Path(__file__).parents[2] / "configs"


def config(name: str) -> RunConfig:
    return load_config(RunConfig, CONFIGS / f"{name}.yaml", [])


def test_the_published_run():
    run = config("glus_s_kfs")
    assert (run.steps, run.global_batch_size, run.optimizer.learning_rate, run.optimizer.warmup_steps) == (
        2000,
        32,
        3e-4,
        100,
    )
    assert (run.model.lora.rank, run.model.lora.alpha, run.model.lora.targets) == (8, 16, ("q_proj", "v_proj"))
    assert (run.model.loss.score, run.model.loss.cross_entropy) == (1, 1)
    assert (run.sampling.least_context_frames, run.sampling.context_frames, run.sampling.expressions) == (8, 12, 3)
    assert run.sampling.mixture == {"mevis/train": 4000, "refer_youtube_vos/train": 15000}
    assert run.trainable == (
        "*lora_*",
        "language.llama.model.embed_tokens.*",
        "language.llama.lm_head.*",
        "language.text_hidden_fcs.*",
        "score_head.*",
    )


@pytest.mark.parametrize(("selector", "glus"), [("glus_s_kfs", "glus_s"), ("demo_selector", "looks")])
def test_the_language_half_is_that_of_its_glus(selector, glus):
    def language_half(model: ModelConfig) -> ModelConfig:
        sizes = SegmenterConfig(hidden_dim=model.prompt_width, memory_dim=16)
        return replace(model, method="glus", segmenter=sizes, loss=ModelConfig().loss, tokenizer="")

    assert language_half(config(selector).model) == language_half(config(glus).model)
    assert config(selector).init_from == config(glus).out
