"""A batch of noise in the shapes of GLUS's, for measurements that need no data, no tokenizer and no weights."""

from collections.abc import Sequence

import torch

from glus.data_pipeline.batches.batch import Batch
from glus.data_pipeline.batches.mask_runs import MaskRuns

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
    (context, query), rows = frames, len(prompts)
    each, ids = rows // videos, torch.tensor(prompts)
    video_of = torch.arange(videos).repeat_interleave(each)
    return Batch(
        frames=[
            torch.randint(0, 256, (context + query, 3, *size), dtype=torch.uint8, generator=random)
            for _ in range(videos)
        ],
        context=torch.arange(context).repeat(videos, 1),
        query=torch.arange(context, context + query).repeat(videos, 1),
        query_numbers=torch.arange(query).repeat(videos, 1),
        video_of=video_of,
        ids=ids,
        attention=torch.ones_like(ids, dtype=torch.bool),
        answer=ids == SEG,
        masks=[MaskRuns.of(torch.rand((each, query, *size), generator=random) > 0.8) for _ in range(videos)],
        split=torch.zeros(rows, dtype=torch.long),
        video_key=video_of + first_video,
        expression=torch.arange(rows),
        objects=torch.ones(rows, 1, dtype=torch.bool),
        names=[f"noise/{row}" for row in range(rows)],
    )
