"""What a pretraining checkpoint sees in held-out clips: do patches name their object's words, does [SEG] point at it?

Patches: the share that names the attribute of its object after `model.stand_ins.language_layer` layers, by group of
words. Pointing: the share of query frames in which the cells that [SEG] names lie most on the right object of the
video; left out where no loss trained [SEG]. It costs a small part of segmenting the videos, and says which object is
meant before masks are trained.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import torch

from glus.common.errors import EvaluationError
from glus.data_pipeline.batches.batch import Batch
from glus.data_pipeline.batches.loader import Loader
from glus.data_pipeline.sampling.sample_plan import SamplePlan
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.evaluation.results.pointing_file import ALL, Pointing
from glus.model.glus import given_frames
from glus.model.pretraining.pretraining_glus import PretrainingGlus, cell_shares, patch_labels
from glus.training.build import build_from_checkpoint
from glus.training.checkpoints import checkpoint
from glus.training.run_config import RunConfig

BATCH = 24
EXPRESSIONS = 4


@dataclass
class _Seen:
    """What is right so far: of patches by group of words, of query frames by kind and video."""

    named: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    pointed: dict[str, dict[str, list[bool]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))


def point(folder: Path, split: ShardedSplit, clips: int, seed: int) -> Pointing:
    """Ask a checkpoint folder about `clips` clips of the split, of one query frame each, drawn by `seed`.

    Its context frames are as many as it was trained with; the clips, query frames and expressions are the same for
    every checkpoint. Raises EvaluationError for a checkpoint that cannot point.
    """
    check_points(checkpoint.read_run_config(folder), folder)
    model, tokenizer, config = build_from_checkpoint(folder)
    assert isinstance(model, PretrainingGlus)
    model.eval()
    name = f"{split.dataset}/{split.split}"
    asked = replace(
        config.sampling,
        mixture={name: 1.0},
        expressions=EXPRESSIONS,
        query_frames=1,
        group_by_object=False,
        context_apart=True,
        kinds=(),
    )
    plan = SamplePlan([split], asked, seed, BATCH)
    loader = Loader(plan, tokenizer, rank=0, ranks=1, size=BATCH, start=0, stop=-(-clips // BATCH), workers=0)
    seen = _Seen()
    with torch.no_grad(), loader:
        for batch in loader:
            _look(model, batch, plan, list(config.sampling.attributes), seen)
    by_kind = {
        kind: {video: 100 * fmean(right) for video, right in sorted(videos.items())}
        for kind, videos in sorted(seen.pointed.items())
    }
    return Pointing(
        checkpoint=str(folder.resolve()),
        step=checkpoint.read_state(folder).step,
        split=name,
        fingerprint=split.fingerprint,
        seed=seed,
        patches={group: 100 * fmean(right) for group, right in seen.named.items()},
        pointing=by_kind,
        asked={kind: sum(map(len, videos.values())) for kind, videos in seen.pointed.items()},
    )


def check_points(config: RunConfig, folder: Path) -> None:
    """Raise EvaluationError where a run has no head that names places."""
    if config.model.method != "pretraining" or not config.model.stand_ins.place_cells:
        raise EvaluationError(
            f"{folder} cannot point: it is no checkpoint of model.method=pretraining with model.stand_ins.place_cells; "
            "`glus evaluate` has object accuracy for every method"
        )


def _look(model: PretrainingGlus, batch: Batch, plan: SamplePlan, groups: Sequence[str], seen: _Seen) -> None:
    """Add what is right in one batch."""
    videos, context = len(batch.frames), batch.context.shape[1]
    tokens = model.language.frame_tokens(given_frames(cast(Any, batch))).unflatten(0, (videos, -1))
    reading, inside = model.read_inside(cast(Any, batch), tokens)
    if batch.attributes:
        logits = model.stand_ins.language(inside[:, context:])
        pairs = zip(batch.object_masks, batch.attributes, strict=True)
        labels = torch.stack([patch_labels(m.painted(), words, round(logits.shape[2] ** 0.5)) for m, words in pairs])
        # The last class of a group is that of patches without an object.
        for number, (group, found) in enumerate(zip(groups, logits.split(model.stand_ins.groups, -1), strict=True)):
            known = labels[..., number] >= 0
            if known.any():
                seen.named[group] += (found[..., :-1].argmax(-1) == labels[..., number])[known].tolist()
    if not model.reads:
        return
    states = model.language.seg_states(reading.before(model.language.seg_id))
    shares = model.stand_ins.place(states).softmax(-1)[:, 0]  # [E, cells], of the one query frame
    for row, video in enumerate(batch.video_of.tolist()):
        covered = cell_shares(batch.object_masks[video].painted(), model.stand_ins.cells)[:, 0].flatten(1) > 0
        targets = batch.objects[row].nonzero().flatten().tolist()
        if len(targets) == 1 and covered[targets[0]].any():
            entry = plan.splits[int(batch.split[row])].videos[int(batch.video_key[row]) % 2**32]
            right = int((shares[row] * covered).sum(-1).argmax()) == targets[0]
            for kind in (entry.expressions[int(batch.expression[row])].kind, ALL):
                seen.pointed[kind][entry.video].append(right)
