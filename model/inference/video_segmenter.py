"""Inference: all expressions of a video together, frame by frame, each frame encoded once for all of them.

Source: the reference's inference_iter.py and GLUS.evaluate. They pass through the video again for each
expression, encode all frames of the window again at each step, and read every prompt from its first token.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glus.common.errors import ModelError
from glus.model.inference.video_prompts import VideoPrompts
from glus.model.language.language import Language
from glus.model.language.prefix import Prefix
from glus.model.language.prompt_rows import IMAGE_TOKEN_ID, common_length
from glus.model.memory import MemoryBank
from glus.model.model_config import PromptedFrames
from glus.model.segmenter import FrameFeatures, Segmenter


@dataclass(frozen=True)
class FrameMasks:
    """Masks of one frame for E expressions: all of them, unless their key frames differ.

    logits: float [E, H, W] at the frame's size, a mask where above 0; answered: bool [E], whether the language model
    answered with [SEG] (a mask for which it did not is to be taken as empty, and counted); expressions: int64 [E] on
    the CPU, which of the expressions asked about the rows are.
    """

    index: int
    logits: Tensor
    answered: Tensor
    expressions: Tensor


@dataclass(frozen=True)
class InferenceOptions:
    """Settings of `Glus.segment_video`, which documents them."""

    window: int
    memory_stride: int
    expressions_together: int
    reuse_prefix: bool
    prompted_frames: PromptedFrames = "all"
    use_memory: bool = True


@dataclass(frozen=True)
class _Track:
    """Expressions that share their key frame, on their way. recent: tokens of the last frames, float [1, P, hidden].

    answered: bool [E'] of each chunk, whether [SEG] was the answer in the last frame that was asked about.
    """

    rows: Tensor  # int64 [E], on the CPU
    banks: tuple[MemoryBank, ...]  # one a chunk of rows
    position: int = 0
    recent: tuple[Tensor, ...] = ()
    answered: tuple[Tensor, ...] = ()


class VideoSegmenter:
    """Segments one video. `prompts` are those of its expressions, `context` holds the context frames' indices."""

    def __init__(
        self,
        language: Language,
        segmenter: Segmenter,
        frame: Callable[[int], Tensor],
        context: Sequence[int],
        prompts: VideoPrompts,
        options: InferenceOptions,
    ):
        self._language, self._segmenter = language, segmenter
        self._frame, self._prompts, self._options = frame, prompts, options
        # A context frame is read again as a query frame: its tokens are kept.
        # Without context frames the first frame stands in, and none of its tokens are taken.
        first = context or (0,)
        self._held = {index: self._tokens(frame(index).unsqueeze(0)) for index in dict.fromkeys(first)}
        tokens = torch.cat([self._held[index] for index in first])[: len(context)]
        beginning = prompts.beginning() if options.reuse_prefix else prompts.by_frames[0][0][0, :0]
        self._begun, shown = len(beginning), int((beginning == IMAGE_TOKEN_ID).sum())
        self._prefix = language.prefix(beginning, tokens[:shown]) if self._begun else None
        self._context = tokens[shown:]

    def follow(self, frames: int, key_frames: Sequence[int]) -> Iterator[FrameMasks]:
        """Forward through the video, then backward; each expression from its own key frame on, each frame once.

        Frames between the first key frame and the last are encoded twice, because some expressions pass them forward
        and others backward; all others are encoded once.
        """
        tracks = {key: self._track(key, key_frames) for key in sorted(set(key_frames))}
        at_key: dict[int, _Track] = {}
        for index in range(min(tracks), frames):
            due = [key for key in tracks if key <= index]
            yield self._step(index, tracks, due, index == frames - 1)
            if index in tracks:
                at_key[index] = tracks[index]
        # The way back begins with what was known after the key frame, which is not decoded again.
        tracks = at_key
        for index in range(max(tracks) - 1, -1, -1):
            yield self._step(index, tracks, [key for key in tracks if key > index], index == 0)

    @property
    def _remembers(self) -> bool:
        return self._segmenter.config.use_memory and self._options.use_memory

    def _is_prompted(self, track: _Track) -> bool:
        return self._options.prompted_frames == "all" or track.position == 0

    def _track(self, key: int, key_frames: Sequence[int]) -> _Track:
        rows = torch.tensor([row for row, frame in enumerate(key_frames) if frame == key])
        chunks = len(rows.split(self._options.expressions_together))
        return _Track(rows, (MemoryBank.empty(self._segmenter.config.memories),) * chunks)

    def _step(self, index: int, tracks: dict[int, _Track], due: list[int], last: bool) -> FrameMasks:
        """Frame `index` for the tracks of the key frames `due`, which replace the former ones.

        last: whether it is the last frame of this direction.
        """
        picture = self._frame(index).unsqueeze(0)
        features = self._features(picture)
        if self._remembers and any(tracks[key].position for key in due):
            features = self._segmenter.begin(features)
        low, answered = [], []
        tokens: Tensor | None = None
        for key in due:
            if self._is_prompted(tracks[key]):
                if tokens is None:
                    tokens = self._held[index] if index in self._held else self._tokens(picture)
                prompted = self._advance(tracks[key], tokens, features, last)
            else:
                prompted = self._remember_alone(tracks[key], features, last)
            tracks[key], logits, seen = prompted
            low += logits
            answered += seen
        full = self._segmenter.full_size(torch.cat(low), *picture.shape[-2:])
        return FrameMasks(index, full, torch.cat(answered), torch.cat([tracks[key].rows for key in due]))

    def _advance(
        self, track: _Track, tokens: Tensor, features: FrameFeatures, last: bool
    ) -> tuple[_Track, list[Tensor], list[Tensor]]:
        """The track after one more frame; low-resolution logits [E, S/4, S/4] and answers [E] of each chunk."""
        recent = (*track.recent, tokens)[-self._options.window :]
        of_window = self._prompts.by_frames[len(recent) - 1]
        ids, attention = (each[track.rows, self._begun :] for each in of_window)
        frames = torch.cat([self._context, *recent])
        prefix, start, shown = self._shared(ids, attention, frames)
        ids, attention, frames = ids[:, start:], attention[:, start:], frames[shown:]
        prompted: list[tuple[Tensor, Tensor]] = []
        for rows in torch.arange(len(ids)).split(self._options.expressions_together):
            real = int(attention[rows].sum(1).max())
            given = ids[rows, :real], attention[rows, :real], frames.unsqueeze(0)
            state = self._language.read(*given, prefix=prefix).last()
            seen = self._language.logits(state).argmax(-1) == self._language.seg_id
            prompted.append((self._language.seg_states(state), seen))
        return self._decode(track, prompted, features, last, recent)

    def _remember_alone(
        self, track: _Track, features: FrameFeatures, last: bool
    ) -> tuple[_Track, list[Tensor], list[Tensor]]:
        """`_advance` without [SEG]: zeros prompt, as model.stand_ins.unprompted trains it: memory says the rest.

        An expression that the key frame did not answer with [SEG] stays without mask.
        """
        width, dtype = self._segmenter.config.hidden_dim, self._language.dtype
        prompted = [(torch.zeros(len(seen), width, dtype=dtype, device=seen.device), seen) for seen in track.answered]
        return self._decode(track, prompted, features, last, track.recent)

    def _decode(
        self,
        track: _Track,
        prompted: Sequence[tuple[Tensor, Tensor]],
        features: FrameFeatures,
        last: bool,
        recent: tuple[Tensor, ...],
    ) -> tuple[_Track, list[Tensor], list[Tensor]]:
        """Decode one frame by the prompts float [E', C] and answers bool [E'] of each chunk."""
        banks, logits = [], []
        for (prompts, seen), bank in zip(prompted, track.banks, strict=True):
            low, kept = self._segmenter.step(
                features,
                prompts,
                bank,
                track.position,
                self._options.memory_stride,
                # The way back begins with the memory of the key frame.
                remember=self._options.use_memory and (not last or track.position == 0),
                shown=seen,
                frame_of=torch.zeros(len(prompts), dtype=torch.int64, device=prompts.device),
            )
            banks.append(kept)
            logits.append(low)
        answered = tuple(seen for _, seen in prompted)
        return _Track(track.rows, tuple(banks), track.position + 1, recent, answered), logits, list(answered)

    def _shared(self, ids: Tensor, attention: Tensor, frames: Tensor) -> tuple[Prefix | None, int, int]:
        """Read the common beginning of this step's prompts once; returns prefix, and its numbers of ids and frames."""
        if not self._options.reuse_prefix or len(ids) == 1:
            return self._prefix, 0, 0
        # Each expression keeps at least one token of its own: its state is read there.
        length = min(common_length(ids, attention), int(attention.sum(1).min()) - 1)
        if not length:
            return self._prefix, 0, 0
        shown = int((ids[0, :length] == IMAGE_TOKEN_ID).sum())
        return self._language.prefix(ids[0, :length], frames[:shown], self._prefix), length, shown

    def _tokens(self, picture: Tensor) -> Tensor:
        """Tokens float [1, P, hidden] of a frame uint8 [1, 3, H, W]."""
        return self._language.frame_tokens([picture])

    def _features(self, picture: Tensor) -> FrameFeatures:
        return self._segmenter.encode(self._segmenter.pixels(picture, self._language.dtype))


def checked_key_frames(key_frame: int | Sequence[int], expressions: int, frames: int) -> list[int]:
    """The key frame of each expression. Raises ModelError for a wrong number of them and one outside the video."""
    keys = [key_frame] * expressions if isinstance(key_frame, int) else [int(key) for key in key_frame]
    if len(keys) != expressions:
        raise ModelError(f"{len(keys)} key frames for {expressions} expressions: give one for all, or one for each")
    for row, key in enumerate(keys):
        if not 0 <= key < frames:
            raise ModelError(
                f"expression {row + 1} of {expressions}: key frame {key} is not in the video; its {frames} frames are "
                f"0 to {frames - 1}"
            )
    return keys
