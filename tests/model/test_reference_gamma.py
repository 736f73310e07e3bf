"""`inference.reference_gamma`: the memory encoder's layer scales as the reference's inference has them."""

import pytest
import torch
from torch import Tensor

from glus.data_pipeline.batches.conversations import inference_prompt
from glus.data_pipeline.sampling.sample_plan import middle_context
from glus.model.sam2_parts import LAYER_SCALE, reset_layer_scales

from .reference import CONTEXT, Recording

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]
FRAMES = 4


def logits(recording: Recording, reset: bool) -> Tensor:
    """Of the recorded clip's first frames, float [T, H, W]."""
    frames = torch.from_numpy(recording.arrays["infer_frames"]).permute(0, 3, 1, 2)
    model = recording.model().eval()
    if reset:
        before = {name: parameter.clone() for name, parameter in model.named_parameters()}
        reset_layer_scales(model)
        changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
        assert changed == {"segmenter.sam2.memory_encoder.fuser.layers.0.gamma"}
        assert all(torch.all(model.get_parameter(name) == LAYER_SCALE) for name in changed)

    def prompts(queries: int) -> tuple[Tensor, Tensor]:
        said = inference_prompt(recording.values["infer_expression"], CONTEXT, queries)
        ids = torch.tensor([recording.tokenizer.encode(said)])
        return ids, torch.ones_like(ids, dtype=torch.bool)

    context = middle_context(FRAMES, CONTEXT)
    seen = model.segment_video(lambda index: frames[index], FRAMES, context, prompts)
    return torch.stack([each.logits[0] for each in seen])


def test_the_references_layer_scales_change_some_pixels_of_frames_that_look_back(recording: Recording) -> None:
    trained, reset = (logits(recording, each) for each in (False, True))
    assert torch.equal(trained[0], reset[0])
    differ = ((trained > 0) != (reset > 0))[1:]
    print(f"{int(differ.sum())} of {differ.numel():,} pixels differ, logits by {(trained - reset).abs().max():.2g}")
    assert (trained - reset)[1:].abs().amax((1, 2)).min() > 1e-4
    assert 0 < differ.float().mean() < 0.01
