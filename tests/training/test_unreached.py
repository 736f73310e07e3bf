"""Trained parameters that no loss reaches are named once, after the first step."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from glus.training.distributed import Rank
from glus.training.run_config import OptimizerConfig, RunConfig
from glus.training.train import train
from glus.training.unreached import Reached, warning_of
from tests.model.tiny import WIDE, tiny_batch, tiny_config, tiny_model

CONVS = [f"segmenter.sam2.sam_mask_decoder.conv_s{level}.{kind}" for level in "01" for kind in ("weight", "bias")]


@pytest.mark.slow
def test_what_gets_no_gradient_is_found_and_what_gets_some_is_not() -> None:
    model = tiny_model(tiny_config(train_image_encoder=False, train_memory=False))
    trained = ("segmenter.sam2.sam_mask_decoder.", "segmenter.sam2.no_mem_embed", "language.mm_projector.")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(trained) and "head" not in name and "mlps" not in name)
    reached = Reached(model)
    model(tiny_batch(WIDE)).loss.backward()
    assert reached.unreached(Rank(0, 0, 1)) == CONVS
    # The hooks are gone.
    assert all(not parameter._backward_hooks for parameter in model.parameters())


def test_the_warning_names_some_and_counts_the_others() -> None:
    config = RunConfig()
    assert warning_of([], config) == warning_of(CONVS, config) == ""
    line = warning_of([f"part.{number}" for number in range(9)], config)
    assert line.startswith("WARNING: no loss reaches 9 of the trained parameters: part.0, part.1, ")
    assert "part.5 and 3 more" in line and "part.6" not in line and "weight_decay" not in line
    decayed = warning_of(CONVS, replace(config, optimizer=OptimizerConfig(weight_decay=0.1)))
    assert CONVS[0] in decayed and "optimizer.weight_decay=0.1 shrinks them" in decayed


@pytest.mark.slow
def test_a_run_says_so_once(
    tiny_run: Callable[..., RunConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = (
        'trainable=["language.mm_projector.*", "segmenter.sam2.sam_mask_decoder.*", "segmenter.sam2.mem*attention.*"]'
    )
    frozen = ("model.segmenter.train_image_encoder=false", "model.segmenter.train_memory=false")
    train(tiny_run(tmp_path / "run", table, *frozen, "steps=2", "engine.stage=plain"), Rank(0, 0, 1))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("WARNING: no loss reaches")]
    assert len(lines) == 1 and "segmenter.sam2.memory_attention.layers.0." in lines[0] and "conv_s" not in lines[0]
