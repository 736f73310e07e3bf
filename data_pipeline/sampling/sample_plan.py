"""Which videos, frames and expressions meet at a step: pure functions of (seed, step, slot).

A slot is one video with its context frames, query frames and expressions. The plan gives the global batch, and a
rank takes its slots, so the order of samples depends on neither the number of ranks nor of workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from glus.common.errors import DataError
from glus.common.paths import PathText
from glus.common.seeds import numpy_generator
from glus.data_pipeline.batches.conversations import draw_templates, templates_named
from glus.data_pipeline.sampling import references
from glus.data_pipeline.sampling.attributes import check_attributes
from glus.data_pipeline.sampling.frame_labels import FrameLabels, read_labels
from glus.data_pipeline.sampling.groups import draw_group
from glus.data_pipeline.sampling.mixture import Mixture, check_weights, expanded
from glus.data_pipeline.sampling.sparse_dense import draw_training_frames
from glus.data_pipeline.shards.reader import ShardedSplit, VideoEntry

#: Lengths of videos whose equal parts are kept.
KEPT_BOUNDS = 4096
#: Last part of the key of what is drawn apart from a slot.
_APART = 1


@dataclass(frozen=True)
class SamplingConfig:
    """How the global batch is drawn."""

    mixture: dict[str, float] = field(default_factory=dict)
    """Weight of each split, by "dataset/split", from 0 up; or of a published mixture ("videolisa", "lisa"; mixture.py).
    """
    independent_draws: bool = False
    """Draw the splits independently of each other, as the reference does; else evenly (mixture.py)."""
    frame_choice: Literal["windows", "sparse_dense", "references"] = "windows"
    """Which frames of a video are shown. windows: context frames over all of it and consecutive query frames (GLUS);
    sparse_dense: sparse frames over all of it, and dense ones among them (VideoLISA; sparse_dense.py); references:
    context frames over all of it, and one of them as query frame (the key frame selector; references.py).
    """
    context_frames: int = 4
    """Context frames, one at random from each equal part of the video; 0 shows query frames alone. Or sparse frames.
    With references, the most of them; videos that are shorter are left out.
    """
    least_context_frames: int = 0
    """With references: each step draws their number from this to context_frames; 0: always context_frames."""
    query_frames: int = 4
    """Consecutive query frames. Or dense frames."""
    expressions: int = 4
    """Expressions drawn for one video at most: two of an object, two of a rival. The reference draws 3."""
    prompts: str = "glus"
    """Words around an expression: "glus" and "videolisa" (the references'), or "short" and "videolisa_short" (none; for
    small models from scratch).
    """
    group_by_object: bool = True
    """Draw two or more expressions of one object and one or more of a rival object, where the first one drawn has them.
    """
    frame_scores: PathText = ""
    """With references: folder of `glus evaluate` or `glus score` on the training splits; J of each frame is its label.
    """
    frame_scores_of: Literal["init_from", "any"] = "init_from"
    """Whose masks frame_scores may rate: those of the GLUS that init_from names (a selector learns where its own GLUS
    does well), or any model's.
    """
    attributes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Groups of words that a batch labels each object with, for pretraining without released weights (attributes.py).
    """
    kinds: tuple[str, ...] = ()
    """Kinds of expressions that are drawn (records.Expression.kind: "look", "motion", "relation" ...); empty: all. One
    frame does not answer expressions about motion.
    """
    context_apart: bool = False
    """Draw context frames by random numbers of their own, so that runs with other numbers of them are trained on the
    same videos, query frames and expressions (docs/study.md).
    """
    single_frame: bool = False
    """Show one frame instead of all context and query frames: the control that cannot see motion."""

    def __post_init__(self) -> None:
        # Named mixtures become their splits at once, so that records of a run say what was drawn from.
        object.__setattr__(self, "mixture", expanded(self.mixture))
        check_attributes(self.attributes)
        if self.frame_choice == "sparse_dense" and not 1 <= self.query_frames <= self.context_frames:
            raise DataError(
                f"sampling.query_frames={self.query_frames} with frame_choice sparse_dense: dense frames are some of "
                f"the sparse ones, so give 1 to sampling.context_frames ({self.context_frames})"
            )
        if self.frame_choice == "references":
            references.check_references(self.least_context_frames, self.context_frames, self.query_frames)
        else:
            references.check_no_references(self.frame_choice, self.least_context_frames, self.frame_scores)
        if self.kinds and self.frame_choice == "references":
            raise DataError("sampling.kinds does not go with frame_choice references, whose labels say what is drawn")


@dataclass(frozen=True)
class Slot:
    """One video of a global batch. Indices are those of `SamplePlan.splits`, the split's videos and expressions."""

    split: int
    video: int
    context: tuple[int, ...]
    query: tuple[int, ...]
    expressions: tuple[int, ...]
    templates: tuple[tuple[tuple[int, int], ...], ...]
    """For each expression and round of its conversation, the indices of the question and answer templates."""
    grouped: bool
    """Whether some expressions share their object set and meet a rival's."""


class SamplePlan:
    """`global_batch(step)` for every step, on any machine, in any order.

    With `repeat` above 0, the first `repeat` steps come again and again: a correct model and loss overfit them.

    Raises DataError where a split of the mixture is absent, has no weight, or has no video that can be trained on.
    """

    def __init__(self, splits: Sequence[ShardedSplit], config: SamplingConfig, seed: int, slots: int, repeat: int = 0):
        names = [f"{split.dataset}/{split.split}" for split in splits]
        check_weights(config.mixture, names)
        self.splits = [split for split, name in zip(splits, names, strict=True) if config.mixture.get(name, 0) > 0]
        if not self.splits:
            raise DataError("sampling.mixture is empty: name at least one split with a weight above 0")
        self.config, self.seed, self.slots, self.repeat = config, seed, slots, repeat
        weights = [config.mixture[f"{split.dataset}/{split.split}"] for split in self.splits]
        self._mixture = Mixture(weights, seed)
        #: With references: labels of frames. And lines to print about what they leave out.
        self.labels = _read_labels(self.splits, config)
        self.notes: list[str] = []
        if self.labels:
            labelled, most = list(zip(self.labels.splits, self.splits, strict=True)), config.context_frames
            self._eligible = [references.eligible(labels, split, most) for labels, split in labelled]
            self.notes += [note for each in labelled for note in references.left_out(*each, most)]
        else:
            self._eligible = [_eligible(split, config) for split in self.splits]
        due = f"that {config.frame_scores} scores" if self.labels else "whose masks are known"
        due += f" and whose kind is among sampling.kinds={list(config.kinds)}" if config.kinds else ""
        for split, eligible in zip(self.splits, self._eligible, strict=True):
            if not len(eligible):
                raise DataError(
                    f"{split.dataset}/{split.split} has no video with {_shortest(config)} frames and an expression "
                    f"{due}: take it out of sampling.mixture"
                )

    @property
    def fingerprint(self) -> str:
        """The data that this plan draws from: the splits' own fingerprints, in order, and that of labels."""
        parts = [split.fingerprint for split in self.splits]
        parts += [self.labels.fingerprint] if self.labels else []
        return "-".join(part[:16] for part in parts)

    def global_batch(self, step: int) -> list[Slot]:
        """The slots of a step, in order."""
        return [self.slot(step, number) for number in range(self.slots)]

    def context_frames(self, step: int) -> int:
        """How many context frames the slots of a step show: the same for all, so that a batch is one array."""
        config = self.config
        if config.frame_choice != "references":
            return config.context_frames
        return references.draw_count(self.seed, step, config.least_context_frames, config.context_frames)

    def slot(self, step: int, number: int) -> Slot:
        """Slot `number` of a step, drawn alone: a rank need not draw those of the others."""
        config, step = self.config, step % self.repeat if self.repeat else step
        random = numpy_generator(self.seed, step, number)
        split = self._mixture.draw(step, number, random.random(), config.independent_draws)
        eligible = self._eligible[split]
        video = int(eligible[random.integers(len(eligible))])
        entry = self.splits[split].videos[video]
        frames = len(entry.frame_names)
        apart = numpy_generator(self.seed, step, number, _APART) if config.context_apart else random
        context, query = _draw_frames(frames, config, random, self.context_frames(step), apart)
        labelled = self.labels.splits[split].labelled(video) if self.labels else None
        expressions, grouped = _draw_expressions(entry, config, random, labelled)
        words = templates_named(config.prompts)
        templates = draw_templates(len(expressions), words.rounds(config.query_frames), random, words)
        return Slot(split, video, context, query, expressions, templates, grouped)


def _read_labels(splits: Sequence[ShardedSplit], config: SamplingConfig) -> FrameLabels | None:
    if config.frame_choice != "references":
        return None
    if not config.frame_scores:
        raise DataError(
            "sampling.frame_scores is empty: name a folder of `glus evaluate` on the training splits, whose scores are "
            "the selector's labels"
        )
    return read_labels(Path(config.frame_scores), splits)


def _draw_frames(
    frames: int, config: SamplingConfig, random: np.random.Generator, count: int, of_context: np.random.Generator
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Context and query frames of a video, or its sparse and dense ones, or `count` references and the target.

    Context frames are drawn from `of_context`, all others from `random`.
    """
    if config.frame_choice == "sparse_dense":
        context, query = draw_training_frames(frames, config.context_frames, config.query_frames, random)
        start = query[0]
    elif config.frame_choice == "references":
        context = random_context(frames, count, random)
        start = context[int(random.integers(count))]
        query = (start,)
    else:
        start = int(random.integers(frames - config.query_frames + 1))
        query = tuple(range(start, start + config.query_frames))
        context = random_context(frames, config.context_frames, of_context)
    if config.single_frame:
        query, context = (start,) * len(query), (start,) * len(context)
    return context, query


@lru_cache(KEPT_BOUNDS)
def _bounds(frames: int, parts: int) -> tuple[int, ...]:
    return tuple(np.linspace(0, frames, parts + 1, dtype=int).tolist())


def random_context(frames: int, parts: int, random: np.random.Generator) -> tuple[int, ...]:
    """One frame at random from each of `parts` equal parts of a video (training); empty parts repeat the one before."""
    bounds = _bounds(frames, parts)
    ranges = zip(bounds[:-1], bounds[1:], strict=True)
    return tuple(int(random.integers(low, high)) if high > low else max(low - 1, 0) for low, high in ranges)


def middle_context(frames: int, parts: int) -> tuple[int, ...]:
    """The middle frame of each of `parts` equal parts (inference): bounds[j] + n//2 for n = ceil(T/parts), clipped."""
    if parts == 0:
        return ()
    bounds, offset = _bounds(frames, parts), -(-frames // parts) // 2
    ranges = zip(bounds[:-1], bounds[1:], strict=True)
    return tuple(min(low + offset, max(high - 1, 0)) for low, high in ranges)


def _shortest(config: SamplingConfig) -> int:
    """Frames that a video must have: the reference's rule. Sparse frames repeat, so that one frame is enough."""
    return 1 if config.frame_choice == "sparse_dense" else max(config.context_frames, config.query_frames)


def _eligible(split: ShardedSplit, config: SamplingConfig) -> NDArray[np.int64]:
    fits = (split.index.frame_counts() >= _shortest(config)) & (split.index.target_counts(config.kinds) > 0)
    return np.flatnonzero(fits)


def _draw_expressions(
    entry: VideoEntry, config: SamplingConfig, random: np.random.Generator, labelled: NDArray[np.bool_] | None
) -> tuple[tuple[int, ...], bool]:
    """Numbers of the expressions of a slot, and whether an object with several and a rival are among them.

    `labelled`, bool [E], says which may be drawn; None: all whose target is known, and whose kind is wanted.
    The first one drawn is always among them, so that every expression is trained on, whatever groups its video has.
    """
    sets = entry.object_sets()
    if labelled is not None:
        sets = {number: objects for number, objects in sets.items() if labelled[number]}
    if config.kinds:
        sets = {number: objects for number, objects in sets.items() if entry.expressions[number].kind in config.kinds}
    known = list(sets)
    order = [known[place] for place in random.permutation(len(known))]
    if not config.group_by_object:
        return tuple(order[: config.expressions]), False
    drawn, grouped = draw_group(sets, order, config.expressions)
    return tuple(drawn), grouped
