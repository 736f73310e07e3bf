"""What follows from the sizes, and sizes that do not fit."""

import pytest

from glus.model.config import ModelConfig, VisionConfig
from glus.model.errors import ModelError


def test_the_defaults_give_a_frame_64_tokens_as_in_the_release():
    assert ModelConfig().vision.tokens_per_frame == 64


def test_layers_above_the_hidden_state_that_is_taken_are_not_run():
    assert VisionConfig().layers_run == 23
    assert VisionConfig(layers=3, select_layer=-1).layers_run == 3
    assert VisionConfig(layers=3, select_layer=1).layers_run == 1


@pytest.mark.parametrize("sizes", [{"image_size": 225}, {"pool": 5}])
def test_sizes_that_do_not_fit_are_refused_with_all_three_of_them(sizes):
    vision = {"image_size": 224, "patch_size": 14, "pool": 4} | sizes
    message = f"image_size {vision['image_size']}, patch_size 14 and pool {vision['pool']} do not fit"
    with pytest.raises(ModelError, match=message):
        VisionConfig(**sizes)
