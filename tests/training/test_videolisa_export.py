"""A run of VideoLISA, exported as a release and read again."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from glus.launch.commands.export import ExportConfig, export
from glus.model.videolisa.video_lisa import VideoLisa
from glus.training.build import build_from_checkpoint
from glus.training.distributed import Rank
from glus.training.pretrained import open_release
from glus.training.run_config import RunConfig, WeightsConfig
from glus.training.train import train
from tests.tiny_videolisa_run import VIDEOLISA

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def segmented(model: VideoLisa, seg_id: int) -> Tensor:
    """Logits of two expressions in three frames."""
    frames = torch.randint(0, 256, (3, 3, 40, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    ids = torch.tensor([[1, -200, 7, 8, seg_id], [1, -200, 9, 12, seg_id]])
    prompt = ids, torch.ones_like(ids, dtype=torch.bool)
    seen = model.eval().segment_video(lambda index: frames[index], 3, [0, 0, 1, 2], [0, 2], prompt)
    return torch.stack([each.logits for each in seen])


def test_a_trained_videolisa_comes_back_from_its_release(tiny_run: Callable[..., RunConfig], tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", *VIDEOLISA, "steps=2", "optimizer.learning_rate=0.01")
    path = train(run, Rank(0, 0, 1))
    export(ExportConfig(path, tmp_path / "release"))
    own, tokenizer, _ = build_from_checkpoint(path)
    again, of_release, _ = open_release(WeightsConfig(videolisa=str(tmp_path / "release")))
    assert isinstance(own, VideoLisa) and isinstance(again, VideoLisa)
    assert of_release.seg_id == tokenizer.seg_id
    assert any("lora_B" in name and each.any() for name, each in own.named_parameters())
    found, expected = segmented(again, tokenizer.seg_id), segmented(own, tokenizer.seg_id)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert (expected[:, 0] - expected[:, 1]).abs().max() > 1e-4
