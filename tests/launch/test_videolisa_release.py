"""`glus segment` and `glus plan` with VideoLISA: a release in the released layout, and the recorded clip."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glus.data_pipeline.sampling.sparse_dense import dense_frames, sparse_frames
from glus.launch import cli
from tests.model.releases import write_sam2
from tests.model.videolisa_releases import CARRIED, write_clip336, write_videolisa

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """merged/ and clip/ of the recorded model, and landscape/: the recorded frames as PNG."""
    root = tmp_path_factory.mktemp("release")
    write_videolisa(root / "merged")
    write_clip336(root / "clip")
    (root / "landscape").mkdir()
    with np.load(CARRIED / "expected.npz", allow_pickle=False) as stored:
        for index, frame in enumerate(stored["infer_landscape_frames"]):
            Image.fromarray(frame).save(root / "landscape" / f"{index:05d}.png")
    return root


def words(release: Path, out: Path, *more: str) -> list[str]:
    weights = ["--weights", str(release / "merged"), "--vision", str(release / "clip"), "--out", str(out)]
    return ["segment", str(release / "landscape"), *weights, *more]


def test_a_released_videolisa_segments_the_recorded_clip_as_the_reference_does(release, tmp_path, capsys):
    facts = json.loads((CARRIED / "expected.json").read_text("utf-8"))["infer_landscape"]
    with np.load(CARRIED / "expected.npz", allow_pickle=False) as stored:
        bits = np.unpackbits(stored["infer_landscape_masks"], count=int(np.prod(facts["masks_shape"])))
    expected = bits.reshape(facts["masks_shape"]).astype(bool)
    command = words(release, tmp_path / "out")
    command[2:2] = [facts["expression"], "another thing"]
    assert cli.main(command) == 0
    folder = tmp_path / "out" / "masks" / "landscape" / "0"
    masks = np.stack([np.asarray(Image.open(folder / f"{index:05d}.png")) > 0 for index in range(len(expected))])
    assert (masks != expected).mean() <= 1e-4
    assert "prompts videolisa, 32 context frames, 4 query frames" in capsys.readouterr().out


def test_a_key_frame_is_refused_before_anything_is_read(release, tmp_path, capsys):
    command = words(release, tmp_path / "out", "--key-frame", "2")
    command[2:2] = ["the bird"]
    assert cli.main(command) == 2
    assert "key_frame=2: videolisa has no key frame; leave it out" in capsys.readouterr().err


def test_masks_of_dense_frames_are_followed_by_sam2_where_asked(release, tmp_path):
    """The frames that the language model saw in full keep their masks; the others get what SAM 2's memory says."""
    write_sam2(tmp_path / "sam2.pt")
    shown = {}
    for name, more in {"alone": [], "followed": ["--inference.post-optimise", str(tmp_path / "sam2.pt")]}.items():
        command = words(release, tmp_path / name, *more)
        command[2:2] = ["the bird"]
        assert cli.main(command) == 0
        folder = tmp_path / name / "masks" / "landscape" / "0"
        shown[name] = [np.asarray(Image.open(each)) > 0 for each in sorted(folder.iterdir())]
    frames = len(shown["alone"])
    dense = set(dense_frames(sparse_frames(frames, 32), 4))
    same = {index for index in range(frames) if np.array_equal(shown["alone"][index], shown["followed"][index])}
    assert dense <= same < set(range(frames))


PLANNED = """
name: planned
global_batch_size: 128
steps: 6000
trainable: ["*lora_*", "segmenter.sam1.mask_decoder.*"]
model:
  method: videolisa
  language: {family: phi3, hidden_size: 3072, intermediate_size: 8192, layers: 32, heads: 32, key_value_heads: 32,
    max_positions: 4096, rms_norm_eps: 1.0e-5, sliding_window: 2047}
  vision: {image_size: 336, pool: 1, projector: mlp2x_gelu}
  segmenter: {kind: sam1}
  lora: {targets: [qkv_proj]}
  loss: {contrastive: 0.0}
sampling: {frame_choice: sparse_dense, prompts: videolisa, context_frames: 32, query_frames: 4, expressions: 1}
"""


def test_the_published_run_is_planned_without_its_weights(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(PLANNED)
    command = ["plan", str(tmp_path / "run.yaml"), "--nodes", "8", "--gpus-per-node", "8"]
    assert cli.main(command) == 0
    shown = capsys.readouterr().out
    assert "1 of 2 videos" in shown and "GPU-hours" in shown
    # Phi-3-mini with 32,012 rows, CLIP-L/14 at 336 up to its layer 23, SAM ViT-H: 4.75 x 10^9 parameters.
    total = int(
        next(line for line in shown.splitlines() if "parameters, of these" in line)
        .split()[4]
        .rstrip(",")
        .replace(",", "")
    )
    assert 4.7e9 < total < 4.8e9
