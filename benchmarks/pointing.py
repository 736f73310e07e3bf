"""What a pretraining checkpoint sees in held-out clips: do patches name their object's words, does [SEG] point at it?

    python benchmarks/pointing.py CHECKPOINT --shards DIR [--split demo_twins/valid] [--clips 96] [--seed 5]

Patches: the share that names the attribute of its object after `model.stand_ins.language_layer` layers, by group of
words. Pointing: the share of query frames in which the cells that [SEG] names lie most on the right object of the
video, mean and standard error over videos, by kind of expression; left out where no loss trained [SEG]. One query
frame a clip, as many context frames as the checkpoint was trained with. Clips are drawn by --seed, the same for every
checkpoint of as many context frames. Prints one JSON object (docs/study.md).
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from glus.data_pipeline.batches.batch import Batch
from glus.data_pipeline.batches.loader import Loader
from glus.data_pipeline.sampling.sample_plan import SamplePlan
from glus.data_pipeline.shards.reader import open_splits
from glus.model.pretraining.pretraining_glus import PretrainingGlus, cell_shares, patch_labels
from glus.training.build import build_from_checkpoint
from glus.training.checkpoints import checkpoint

BATCH = 24
EXPRESSIONS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--split", default="demo_twins/valid")
    parser.add_argument("--clips", type=int, default=96)
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer, config = build_from_checkpoint(checkpoint.resolve(options.checkpoint))
    if not isinstance(model, PretrainingGlus) or not model.stand_ins.cells:
        parser.error(
            f"{options.checkpoint}: no checkpoint of model.method=pretraining with model.stand_ins.place_cells"
        )
    model.eval()
    asked = replace(config.sampling, mixture={options.split: 1.0}, expressions=EXPRESSIONS, query_frames=1)
    plan = SamplePlan(open_splits(options.shards, [options.split]), asked, options.seed, BATCH)
    steps = -(-options.clips // BATCH)
    loader = Loader(plan, tokenizer, rank=0, ranks=1, size=BATCH, start=0, stop=steps, workers=0)
    named: dict[str, list[bool]] = defaultdict(list)
    pointed: dict[str, dict[int, list[bool]]] = defaultdict(lambda: defaultdict(list))
    with torch.no_grad():
        for batch in loader:
            look(model, batch, plan, list(config.sampling.attributes), named, pointed)
    words = {group: round(100 * float(np.mean(right)), 1) for group, right in named.items()}
    print(
        json.dumps({"patches": words, "pointing": {kind: summed(videos) for kind, videos in pointed.items()}}, indent=1)
    )


def look(
    model: PretrainingGlus,
    batch: Batch,
    plan: SamplePlan,
    groups: Sequence[str],
    named: dict[str, list[bool]],
    pointed: dict[str, dict[int, list[bool]]],
) -> None:
    """Add what is right in one batch: of patches by group of words, of query frames by kind and video."""
    videos, context = len(batch.frames), batch.context.shape[1]
    order = torch.cat([batch.context, batch.query], dim=1)
    frames = [each[index] for each, index in zip(batch.frames, order, strict=True)]
    reading, inside = model.read_inside(batch, model.language.frame_tokens(frames).unflatten(0, (videos, -1)))
    if batch.attributes:
        logits = model.stand_ins.language(inside[:, context:])
        pairs = zip(batch.object_masks, batch.attributes, strict=True)
        labels = torch.stack([patch_labels(m.painted(), words, round(logits.shape[2] ** 0.5)) for m, words in pairs])
        # The last class of a group is that of patches without an object.
        for number, (group, found) in enumerate(zip(groups, logits.split(model.stand_ins.groups, -1), strict=True)):
            known = labels[..., number] >= 0
            if known.any():
                named[group] += (found[..., :-1].argmax(-1) == labels[..., number])[known].tolist()
    if not model.reads:
        return
    states = model.language.seg_states(reading.before(model.language.seg_id))
    shares = model.stand_ins.place(states).softmax(-1)[:, 0]  # [E, cells], of the one query frame
    for row, video in enumerate(batch.video_of.tolist()):
        covered = cell_shares(batch.object_masks[video].painted(), model.stand_ins.cells)[:, 0].flatten(1) > 0
        targets = batch.objects[row].nonzero().flatten().tolist()
        if len(targets) == 1 and covered[targets[0]].any():
            place = int(batch.video_key[row]) % 2**32
            entry = plan.splits[int(batch.split[row])].videos[place]
            on_each = (shares[row] * covered).sum(-1)
            kind = entry.expressions[int(batch.expression[row])].kind
            pointed[kind][place].append(int(on_each.argmax()) == targets[0])


def summed(videos: Mapping[int, Sequence[bool]]) -> dict[str, float]:
    """Percent over videos with its standard error, and how much was asked."""
    means = np.array([100 * np.mean(right) for right in videos.values()])
    asked = sum(map(len, videos.values()))
    error = float(means.std() / len(means) ** 0.5)
    return {"percent": round(float(means.mean()), 1), "error": round(error, 1), "videos": len(means), "asked": asked}


if __name__ == "__main__":
    main()
