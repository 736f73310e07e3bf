"""Where the host may wait for the GPU, and why. A trace refuses any other place."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from glus.training.trace.ledger import Sync


@dataclass(frozen=True)
class AllowedSync:
    """At most `most` times in a micro-batch, in a frame of a video, or (`once`) in a process.

    place: "file:function" of ours that asks for it; what: as the pretended device names it.
    """

    place: str
    what: str
    most: int
    reason: str
    once: bool = False


#: In a training micro-batch: all are of the first one alone.
TRAINING = (
    AllowedSync(
        "model/preprocess.py:_channels",
        "copy to the GPU",
        4,
        "means and deviations of CLIP and SAM 2, kept for the process",
        once=True,
    ),
    AllowedSync(
        "model/memory_attention.py:begin_attention",
        "copy to the GPU",
        1,
        "rotary table of SAM 2's memory attention, first layer's self-attention, kept for the process",
        once=True,
    ),
    AllowedSync(
        "model/memory_attention.py:look_back",
        "copy to the GPU",
        3,
        "the same, self-attention of the other layers",
        once=True,
    ),
    AllowedSync(
        "model/sam2_parts.py:rotate",
        "copy to the GPU",
        4,
        "the same, a layer's attention to memories",
        once=True,
    ),
)


@dataclass(frozen=True)
class CheckedSyncs:
    """rows: (times, what, place, reason) of those that are allowed; refused: messages on the others."""

    rows: list[tuple[int, str, str, str]]
    refused: list[str]
    repeated: int


def check_syncs(found: Mapping[Sync, int], allowed: tuple[AllowedSync, ...]) -> CheckedSyncs:
    """Compare the syncs of a trace with those that are allowed. `repeated`: how many every micro-batch has."""
    counts: Counter[tuple[str, str]] = Counter()
    for sync, times in found.items():
        counts[sync.where.place or sync.where.part, sync.what] += times
    rows, refused, repeated = [], [], 0
    for (place, what), times in counts.items():
        known = next((each for each in allowed if (each.place, each.what) == (place, what)), None)
        if known is None:
            refused.append(f"{place}: {what}, {times} times: the host waits for the GPU here and need not")
        elif times > known.most:
            refused.append(f"{place}: {what}, {times} times, {known.most} are allowed ({known.reason})")
        else:
            rows.append((times, what, place, known.reason))
            repeated += 0 if known.once else times
    return CheckedSyncs(rows, refused, repeated)
