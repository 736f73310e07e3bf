"""Segment a video from Python and print how much of each frame every mask covers.

python examples/segment_video.py VIDEO WEIGHTS "the dog on the left" ["the ball" ...]
"""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from glus.evaluation.predict.inference_config import InferenceConfig
from glus.evaluation.predict.model_source import ModelSource
from glus.evaluation.predict.video_masks import Asked, masks_of_video
from glus.evaluation.segment.clip import open_clip


def segment_video(
    video: Path, weights: Path, expressions: Sequence[str]
) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """Yield (frame name, expression, mask [H, W]), frame by frame. `weights` is a run, a checkpoint or a release."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaded = ModelSource.find(weights).load(device)
    with tempfile.TemporaryDirectory() as scratch:
        clip = open_clip(video, Path(scratch) / "frames")
        prompts = Asked(expressions, names=expressions, key_frames=[0] * len(expressions))
        for frame in masks_of_video(loaded, InferenceConfig(), clip.read, len(clip), prompts, device):
            for place, mask in zip(frame.expressions, frame.masks, strict=True):
                yield clip.frame_names[frame.index], expressions[place], mask


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    for frame_name, expression, mask in segment_video(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]):
        print(f"{frame_name}  {expression}: {mask.mean():.1%} of the frame")
