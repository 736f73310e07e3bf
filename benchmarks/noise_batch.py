"""A batch of noise in the shapes of GLUS's, for measurements that need no data, no tokenizer and no weights."""

from collections.abc import Sequence

import torch

from glus.data_pipeline.batches.batch import Batch
from glus.data_pipeline.batches.mask_runs import MaskRuns
from glus.training.trace.noise import batch_of

#: LLaMA's vocabulary with what GLUS adds, its [SEG], and what stands for a frame.
VOCABULARY, SEG, IMAGE = 32_003, 32_000, -200


def noise_batch(
    prompts: Sequence[Sequence[int]],
    videos: int,
    frames: tuple[int, int],
    size: tuple[int, int],
    random: torch.Generator,
    first_video: int = 0,
) -> Batch:
    """`videos` videos of noise with as many of the prompts each, all for one object: the contrastive loss has partners.

    prompts: token ids, alike in length, with `IMAGE` for each frame; frames: numbers of context and query frames; size:
    height and width.
    """
    each = len(prompts) // videos
    shape, of_masks = (sum(frames), 3, *size), (each, frames[1], *size)
    pictures = [torch.randint(0, 256, shape, dtype=torch.uint8, generator=random) for _ in range(videos)]
    masks = [MaskRuns.of(torch.rand(of_masks, generator=random) > 0.8) for _ in range(videos)]
    return batch_of(prompts, SEG, frames, pictures, masks, first_video)
