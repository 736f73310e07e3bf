"""How the model of each method is asked for the masks of a video: which frames it sees, and in which words."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Never, Protocol, cast

import torch
from torch import Tensor

from glus.common.errors import EvaluationError, InputError
from glus.common.files import sha256_of
from glus.data_pipeline.batches.batch import padded_ids
from glus.data_pipeline.batches.conversations import templates_named
from glus.data_pipeline.batches.prompt_style import Style, clean_expression
from glus.data_pipeline.batches.tokenizer import IMAGE_TOKEN_ID, Tokenizer
from glus.data_pipeline.raw.records import Expression
from glus.data_pipeline.sampling.sample_plan import SamplingConfig, middle_context
from glus.data_pipeline.sampling.sparse_dense import dense_frames, sparse_frames
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.evaluation.predict.inference_config import InferenceConfig
from glus.evaluation.predict.model_source import Loaded
from glus.model.model_config import Method

if TYPE_CHECKING:
    from glus.model.glus import Glus
    from glus.model.inference.mask_propagation import MaskPropagation
    from glus.model.inference.video_segmenter import FrameMasks
    from glus.model.videolisa.video_lisa import VideoLisa

#: The index of a frame -> uint8 [3, H, W] on the model's device.
Picture = Callable[[int], Tensor]


@dataclass(frozen=True)
class Asked:
    """Expressions of one video. `names` says in messages which expression a text is; `key_frames` are indices.

    `wordings` are of prompt_style.WORDINGS, one an expression; without any, all are referring expressions.
    """

    texts: Sequence[str]
    names: Sequence[str]
    key_frames: Sequence[int]
    wordings: Sequence[str] = ()


class Ask(Protocol):
    """Yield the masks of a video of `frames` frames, each frame once for each expression."""

    def __call__(
        self,
        loaded: Loaded,
        config: InferenceConfig,
        picture: Picture,
        frames: int,
        asked: Asked,
        /,
    ) -> "Iterator[FrameMasks]": ...


@dataclass(frozen=True)
class Asking:
    """How one method is asked.

    `wording` is how an expression of a dataset is worded; `recorded` are the settings that predictions depend on.
    """

    masks: Ask
    wording: Callable[[str, Expression], str]
    recorded: Callable[[InferenceConfig, SamplingConfig], dict[str, int | bool | str]]

    @property
    def has_memory(self) -> bool:
        """Whether a memory follows masks through the video, from a key frame."""
        return self.masks is _ask_in_windows


def check_text(text: str, name: str) -> None:
    """Raise EvaluationError for a text with nothing in it; `name` says which expression it is."""
    if not clean_expression(text).strip():
        raise EvaluationError(f"{name} is empty ({text!r}): say in words what is to be segmented")


class VideoPrompts:
    """Called with the number of query frames: ids int64 [E, L] and attention bool [E, L], on the CPU.

    `names` says in messages which expression a text is. Raises EvaluationError for a text with nothing in it.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        texts: Sequence[str],
        names: Sequence[str],
        context_frames: int,
        templates: Style,
        trailing_blank: bool,
        wordings: Sequence[str] = (),
    ):
        for text, name in zip(texts, names, strict=True):
            check_text(text, name)
        self._tokenizer, self._texts, self._context_frames = tokenizer, texts, context_frames
        self._templates, self._trailing_blank = templates, trailing_blank
        self._wordings, self._names = wordings or ("expression",) * len(texts), names

    def __call__(self, queries: int) -> tuple[Tensor, Tensor]:
        """The prompts for the last of `queries` query frames."""
        prompts = [
            self._templates.ask(text, wording, self._context_frames, queries, self._trailing_blank)
            for text, wording in zip(self._texts, self._wordings, strict=True)
        ]
        return padded_ids([self._tokenizer.encode(prompt) for prompt in prompts], self._tokenizer.pad_id)

    def with_given_answers(self) -> tuple[Tensor, Tensor]:
        """The prompts of a style that gives the answer, one <image> and one [SEG] each, cut as the reference cuts.

        Raises EvaluationError for a text that does not leave both.
        """
        ids, attention = self(1)
        most = self._templates.max_tokens
        ids, attention = ids[:, :most], attention[:, :most]
        for row, name, text in zip(ids.tolist(), self._names, self._texts, strict=True):
            if (row.count(IMAGE_TOKEN_ID), row.count(self._tokenizer.seg_id)) != (1, 1):
                raise EvaluationError(
                    f"{name} ({text[:80]!r}) has an <image> or a [SEG] of its own or is too long for {most} tokens: "
                    "change or shorten it"
                )
        return ids, attention


def _prompts(loaded: Loaded, config: InferenceConfig, asked: Asked) -> VideoPrompts:
    sampling = loaded.sampling
    words = templates_named(sampling.prompts)
    loaded.tokenizer.check_has(words.tokens, sampling.prompts)
    return VideoPrompts(
        loaded.tokenizer,
        asked.texts,
        asked.names,
        sampling.context_frames,
        words,
        config.trailing_blank,
        asked.wordings,
    )


def _ask_in_windows(
    loaded: Loaded, config: InferenceConfig, picture: Picture, frames: int, asked: Asked
) -> "Iterator[FrameMasks]":
    """GLUS: context frames, a window of query frames, memory, key frames."""
    _refuse_post_optimise(config)
    model: Glus = cast(Any, loaded.model)
    return model.segment_video(
        picture,
        frames,
        middle_context(frames, loaded.sampling.context_frames),
        _prompts(loaded, config, asked),
        window=loaded.sampling.query_frames,
        memory_stride=config.memory_stride,
        key_frame=asked.key_frames,
        expressions_together=config.expressions_together,
        prompted_frames=config.prompted_frames,
        use_memory=config.use_memory,
    )


def _ask_once(
    loaded: Loaded, config: InferenceConfig, picture: Picture, frames: int, asked: Asked
) -> "Iterator[FrameMasks]":
    """VideoLISA: one prompt over sparse and dense frames, then each frame alone."""
    if any(asked.key_frames):
        raise EvaluationError("VideoLISA segments each frame alone and has no key frame: leave the key frames out")
    sparse = sparse_frames(frames, loaded.sampling.context_frames)
    dense = dense_frames(sparse, loaded.sampling.query_frames)
    model: VideoLisa = cast(Any, loaded.model)
    alone = model.segment_video(
        picture,
        frames,
        sparse,
        dense,
        _prompts(loaded, config, asked).with_given_answers(),
        expressions_together=config.expressions_together,
    )
    if loaded.propagation is None:
        return alone
    return _followed(loaded.propagation, alone, dense, picture, frames, config.expressions_together)


def _followed(
    propagation: "MaskPropagation",
    alone: "Iterator[FrameMasks]",
    dense: Sequence[int],
    picture: Picture,
    frames: int,
    together: int,
) -> "Iterator[FrameMasks]":
    """The dense frames' masks followed through the video; the other frames' own masks are not looked at."""
    masks = {}
    for seen in alone:
        if seen.index in dense:
            masks[seen.index] = seen.logits > 0
        if seen.index == max(dense):
            break
    given = sorted(masks)
    yield from propagation.follow(picture, frames, given, torch.stack([masks[each] for each in given], 1), together)


#: ReasonVOS's kinds of text by its is_sent (raw/annotated_split.py) -> VideoLISA's wording of them.
_REASON_VOS = {"sentence": "sentence", "phrase": "scene"}
#: Dataset -> its wording by kind; "" is any other kind. All other datasets: "expression".
_WORDINGS: Mapping[str, Mapping[str, str]] = {
    "reason_vos": _REASON_VOS | {"": "scene"},
    "reason_seg": {"sentence": "image_sentence", "": "image_phrase"},
    **dict.fromkeys(("refcoco", "refcoco_plus", "refcocog", "refclef", "grefcoco"), {"": "image"}),
}


def _videolisa_wording(dataset: str, expression: Expression) -> str:
    """The reference's inference scripts: by dataset, ReasonVOS by is_sent (a phrase where it does not say)."""
    of_dataset = _WORDINGS.get(dataset, {"": "expression"})
    return of_dataset.get(expression.kind, of_dataset[""])


def _refuse_post_optimise(config: InferenceConfig) -> None:
    if config.post_optimise is not None:
        raise EvaluationError(
            "inference.post_optimise: GLUS follows masks by a memory of its own; leave it out, or name a VideoLISA"
        )


def refuse_memory_switches(config: InferenceConfig, method: Method) -> None:
    """Raise EvaluationError where a switch of the memory is set for a method without one."""
    if ASKING[method].has_memory:
        return
    for name in ("reference_gamma", "prompted_frames", "use_memory"):
        if getattr(config, name) != getattr(InferenceConfig, name):
            raise EvaluationError(f"inference.{name}: {method} has no memory of frames; leave it out")


def _glus_record(config: InferenceConfig, _: SamplingConfig) -> dict[str, int | bool | str]:
    _refuse_post_optimise(config)
    return config.recorded()


def _sha256(file: Path) -> str:
    try:
        return sha256_of(file, "weights of SAM 2")
    except InputError as error:
        raise EvaluationError(f"inference.post_optimise: {error}", file=str(file)) from error


def _videolisa_record(config: InferenceConfig, sampling: SamplingConfig) -> dict[str, int | bool | str]:
    if config.key_frames is not None:
        raise EvaluationError("inference.key_frames: VideoLISA segments each frame alone and has none; leave it out")
    refuse_memory_switches(config, "videolisa")
    followed = {} if config.post_optimise is None else {"post_optimise": _sha256(config.post_optimise)}
    compiled = {} if config.compile == "none" else {"compile": config.compile}
    return {
        **followed,
        **compiled,
        "method": "videolisa",
        "prompts": sampling.prompts,
        "sparse_frames": sampling.context_frames,
        "dense_frames": sampling.query_frames,
        "expressions_together": config.expressions_together,
        "precision": config.chosen_precision(),
    }


def _refuse_masks(*_: object) -> Never:
    raise EvaluationError(
        "these weights are a key frame selector, which has no segmenter: name a GLUS as weights, and use the selector "
        "to choose key frames (docs/key_frames.md)"
    )


def check_segments(method: Method) -> None:
    """Raise EvaluationError for a method that makes no masks, before its model is loaded."""
    if ASKING[method].masks is _refuse_masks:
        _refuse_masks()


ASKING: Mapping[Method, Asking] = MappingProxyType(
    {
        "glus": Asking(_ask_in_windows, lambda dataset, expression: "expression", _glus_record),
        "videolisa": Asking(_ask_once, _videolisa_wording, _videolisa_record),
        "pretraining": Asking(_ask_in_windows, lambda dataset, expression: "expression", _glus_record),
        "selector": Asking(_refuse_masks, lambda dataset, expression: "expression", _refuse_masks),
    }
)


def wording_notes(method: Method, splits: Iterable[ShardedSplit]) -> list[str]:
    """A line for each split of ReasonVOS whose expressions do not say whether they are sentences; VideoLISA asks."""
    if ASKING[method].wording is not _videolisa_wording:
        return []
    notes = []
    for split in splits:
        said = [each for entry in split.videos for each in entry.expressions] if split.dataset == "reason_vos" else []
        silent = sum(each.kind not in _REASON_VOS for each in said)
        if silent:
            notes.append(
                f"{split.dataset}/{split.split}: {silent} of {len(said)} expressions do not say is_sent and are asked "
                "as phrases; prepare the split again where its annotation has it"
            )
    return notes
