"""A micro-batch of noise at the sizes of a config: GLUS's prompts in number and length, frames without content."""

from collections.abc import Sequence

import torch
from torch import Tensor

from glus.common.errors import TrainingError
from glus.data_pipeline.batches.batch import Batch, padded_ids
from glus.data_pipeline.batches.mask_runs import MaskRuns
from glus.model.language.prompt_rows import IMAGE_TOKEN_ID
from glus.training.metrics.prompt_tokens import READINGS
from glus.training.run_config import RunConfig

#: Ids that stand for words, and by how many words the expressions of a video differ.
_WORDS, _SHORTER = range(3, 200), 5


def noise_batch(config: RunConfig, seg_id: int, height: int, width: int) -> Batch:
    """V videos of `engine.micro_batch_size` with `sampling.expressions` each, frames uint8 [F, 3, height, width].

    The expressions of a video name one object and differ in length. Raises TrainingError for a method whose prompts are
    not made here.
    """
    if config.model.method != "glus":
        raise TrainingError(f"model.method={config.model.method}: only GLUS's micro-batch is traced so far")
    sampling, videos, reading = config.sampling, config.engine.micro_batch_size, READINGS["glus"]
    context, queries, each = sampling.context_frames, sampling.query_frames, sampling.expressions
    rows = videos * each
    random = torch.Generator().manual_seed(0)
    # The text before the question, context frames and first query frame are the same for all prompts of a video.
    begin = [*range(3, 3 + reading.shared_text), *[IMAGE_TOKEN_ID] * (context + 1)]
    rest = [seg_id, *[IMAGE_TOKEN_ID, seg_id] * (queries - 1)]
    prompts = []
    for row in range(rows):
        words = reading.text - reading.shared_text - queries - _SHORTER * (row % each)
        drawn = torch.randint(_WORDS.start, _WORDS.stop, (max(words, 1),), generator=random).tolist()
        prompts.append([*begin, *drawn, *rest])
    masks = torch.zeros(each, queries, height, width, dtype=torch.bool)
    masks[..., : height // 2, : width // 2] = True
    frames = torch.zeros(context + queries, height, width, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    return batch_of(prompts, seg_id, (context, queries), [frames] * videos, [MaskRuns.of(masks)] * videos)


def batch_of(
    prompts: Sequence[Sequence[int]],
    seg_id: int,
    shown: tuple[int, int],
    frames: list[Tensor],
    masks: list[MaskRuns],
    first_video: int = 0,
) -> Batch:
    """Videos with as many of the prompts each, all for one object: the contrastive loss has partners.

    prompts: token ids; shown: numbers of context and query frames; frames: V x uint8 [F, 3, H, W]; masks: bool
    [E_v, Q, H, W] of each.
    """
    (context, queries), rows, videos = shown, len(prompts), len(frames)
    each = rows // videos
    ids, real = padded_ids(prompts, 0)
    video_of = torch.arange(videos).repeat_interleave(each)
    return Batch(
        frames=frames,
        context=torch.arange(context).repeat(videos, 1),
        query=torch.arange(context, context + queries).repeat(videos, 1),
        query_numbers=torch.arange(queries).repeat(videos, 1),
        video_of=video_of,
        ids=ids,
        attention=real,
        answer=ids == seg_id,
        masks=masks,
        split=torch.zeros(rows, dtype=torch.int64),
        video_key=video_of + first_video,
        expression=torch.arange(each).repeat(videos),
        objects=torch.ones(rows, 1, dtype=torch.bool),
        names=[f"noise/train/{row // each}/{row % each}" for row in range(rows)],
    )
