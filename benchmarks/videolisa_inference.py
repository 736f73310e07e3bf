"""Seconds a video of VideoLISA, as we ask it and as its reference asks it, with the same weights in one run.

    python benchmarks/videolisa_inference.py            12 frames, 1 and 4 expressions
    python benchmarks/videolisa_inference.py FRAMES     another number of frames

The reference takes one expression at a time: for each it encodes the 32 sparse frames again (CLIP), reads the prompt
from its first token and encodes every frame again (SAM 1). We encode each frame once a video, read what all prompts
begin with once, and decode all expressions together. Both are our code, so that nothing but the way differs.

The model is small, freshly drawn, and has the release's form: 2,336 video tokens, SAM 1 of 1024 pixels. Its image
encoder takes most of the time, as ViT-H does. Times are of the processor, on one thread; they mean something as a ratio
within one run alone.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from glus.data_pipeline.batches.batch import padded_ids
from glus.data_pipeline.sampling.sparse_dense import dense_frames, sparse_frames
from glus.model.model_config import LanguageConfig, ModelConfig, Sam1Config, SegmenterConfig, VisionConfig
from glus.model.videolisa.video_lisa import VideoLisa

RECORDED = Path(__file__).parents[1] / "tests" / "data" / "parity_videolisa"
VOCABULARY, SEG = 572, 571
SIZES = ModelConfig(
    method="videolisa",
    language=LanguageConfig(
        family="phi3",
        hidden_size=128,
        intermediate_size=256,
        layers=4,
        heads=4,
        key_value_heads=4,
        max_positions=4096,
        sliding_window=2047,
    ),
    vision=VisionConfig(
        image_size=336, hidden_size=64, intermediate_size=128, layers=4, heads=4, pool=1, projector="mlp2x_gelu"
    ),
    segmenter=SegmenterConfig(kind="sam1"),
    sam1=Sam1Config(
        width=192, depth=6, heads=6, global_attention_blocks=(2, 5), hidden_dim=32, decoder_feedforward=128
    ),
)


@dataclass(frozen=True)
class Pass:
    """Seconds of a way through a video, and its masks: bool [T, E, H, W]."""

    seconds: float
    masks: Tensor


def recorded_prompts() -> list[list[int]]:
    """Token ids of the recording's prompts, one of each kind: real ones of the small tokenizer."""
    return [each["input_ids"] for each in json.loads((RECORDED / "expected.json").read_text("utf-8"))["infer_prompts"]]


def segment(model: VideoLisa, frames: int, prompts: Sequence[list[int]], reuse: bool) -> Pass:
    """Masks of a clip of noise for prompts together."""

    def frame(index: int) -> Tensor:
        random = torch.Generator().manual_seed(index)
        return torch.randint(0, 256, (3, 90, 160), dtype=torch.uint8, generator=random)

    sparse = sparse_frames(frames, 32)
    begun = time.process_time()
    seen = model.segment_video(
        frame, frames, sparse, dense_frames(sparse, 4), padded_ids(prompts, 0), reuse_prefix=reuse
    )
    masks = torch.stack([each.logits > 0 for each in seen])
    return Pass(time.process_time() - begun, masks)


def asked_as_the_reference_does(model: VideoLisa, frames: int, prompts: Sequence[list[int]]) -> Pass:
    """One expression at a time, everything again for each."""
    alone = [segment(model, frames, [prompt], reuse=False) for prompt in prompts]
    return Pass(sum(each.seconds for each in alone), torch.cat([each.masks for each in alone], dim=1))


def main() -> None:
    """See the module's first lines."""
    torch.set_num_threads(1)
    frames = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    torch.manual_seed(0)
    model = VideoLisa(SIZES, VOCABULARY, SEG).eval()
    prompts = recorded_prompts()
    segment(model, 1, prompts[:1], reuse=True)  # the first calls are slow
    print(f"{frames} frames             as the reference     ours    ratio    pixels that differ")
    for expressions in (1, 4):
        theirs = asked_as_the_reference_does(model, frames, prompts[:expressions])
        ours = segment(model, frames, prompts[:expressions], reuse=True)
        differ = int((theirs.masks != ours.masks).sum())
        print(
            f"{expressions} expressions, seconds {theirs.seconds:18.2f} {ours.seconds:8.2f} "
            f"{theirs.seconds / ours.seconds:8.2f}    {differ} of {ours.masks.numel():,}"
        )


if __name__ == "__main__":
    main()
