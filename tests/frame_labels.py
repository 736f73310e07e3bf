"""Labels of frames as `glus evaluate` leaves them, written for tests: scores.json and frames.parquet."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from glus.data_pipeline.shards.reader import ShardedSplit, VideoEntry
from glus.evaluation.results.frame_scores import write_frame_scores
from glus.evaluation.score.expression_score import FrameScores

#: (video, number of the expression) -> J of each frame, 0 to 100; None leaves the expression out.
Label = Callable[[VideoEntry, int], "np.ndarray | None"]


def ramp(entry: VideoEntry, expression: int) -> np.ndarray:
    """J rises from frame to frame, in steps of its own for each expression."""
    return np.linspace(0, 100 / (1 + expression), len(entry.frame_names))


def write_labels(
    out: Path,
    splits: Sequence[ShardedSplit],
    label: Label = ramp,
    weights: str = "",
    frame_names: Callable[[VideoEntry], Sequence[str]] = lambda entry: entry.frame_names,
    fingerprints: dict[str, str] | None = None,
) -> Path:
    """Write `out` and return it; expressions without a known target get no labels, as in `glus score`."""
    scores = []
    for split in splits:
        for entry in split.videos:
            for number in entry.object_sets():
                found = label(entry, number)
                if found is not None:
                    names = tuple(frame_names(entry))
                    # As many as there are names: a test may change these.
                    values = np.resize(found, len(names)).astype(np.float32)
                    said = entry.expressions[number].id
                    lost = np.zeros(len(names), np.int8)
                    scores.append(
                        FrameScores(entry.dataset, entry.split, entry.video, said, names, values, values, lost)
                    )
    out.mkdir(parents=True, exist_ok=True)
    own = {f"{split.dataset}/{split.split}": split.fingerprint for split in splits}
    origin = own | (fingerprints or {}) | ({"weights": weights, "checkpoint": "runs/glus"} if weights else {})
    (out / "scores.json").write_text(json.dumps({"format": 2, "origin": origin}), encoding="utf-8")
    write_frame_scores(scores, out)
    return out
