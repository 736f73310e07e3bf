"""Predict the masks of one video's expressions and write them; skips expressions whose masks are on disk."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from glus.common.errors import EvaluationError, ModelError
from glus.data_pipeline.raw.records import Expression
from glus.data_pipeline.shards.reader import ShardedSplit, VideoEntry
from glus.evaluation.predict.asking import ASKING, Asked
from glus.evaluation.predict.background import WriteBehind
from glus.evaluation.predict.inference_config import InferenceConfig, Predicted
from glus.evaluation.predict.key_frames import KeyFrames
from glus.evaluation.predict.model_source import Loaded
from glus.evaluation.predict.predictions import expression_folder, writing_masks
from glus.evaluation.predict.video_masks import masks_of_video


class TokensRead:
    """Tokens that a language model reads while a video is predicted: the cost that methods differ by most.

    `tokens`: rows times length of all passes so far, padding included.
    """

    def __init__(self) -> None:
        self.tokens = 0

    def __call__(self, module: nn.Module, args: tuple[Any, ...], keys: dict[str, Any]) -> None:
        """Add one pass (a forward pre-hook with keyword arguments)."""
        self.tokens += keys["inputs_embeds"].shape[:2].numel()


@contextmanager
def counting_tokens(language: nn.Module) -> Iterator[TokensRead]:
    """Count within the block; `language` is a causal language model of transformers, whose decoder is `model`."""
    count = TokensRead()
    decoder = language.get_submodule("model")
    hook = decoder.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield count
    finally:
        hook.remove()


def predict_video(
    loaded: Loaded,
    split: ShardedSplit,
    video: int,
    out: Path,
    config: InferenceConfig,
    key_frames: KeyFrames | None,
    device: torch.device,
) -> Predicted:
    """Predict all expressions of a video that are due, together: its frames are read and encoded once.

    `video` counts in the split; `key_frames` are those of `config.key_frames`. Raises DataError where a frame cannot be
    read, EvaluationError for an expression that is empty or too long.
    """
    entry = split.videos[video]
    due = [each for each in entry.expressions if not expression_folder(out, entry, each).is_dir()]
    found, frames, silent = len(entry.expressions) - len(due), len(entry.frame_names), 0
    if not due:
        return Predicted(0, found, 0, 0)
    where = f"{entry.dataset}/{entry.split} video {entry.video}"
    asked = Asked(
        [expression.text for expression in due],
        [f"{where} expression {expression.id}" for expression in due],
        [_key_frame(key_frames, entry, expression) for expression in due],
        [ASKING[loaded.model.config.method].wording(entry.dataset, expression) for expression in due],
    )
    shown = masks_of_video(loaded, config, lambda index: split.read_frames(video, [index])[0], frames, asked, device)
    with ExitStack() as stack:
        count = stack.enter_context(counting_tokens(loaded.model.language.llama))
        writers = [stack.enter_context(writing_masks(out, entry, expression)) for expression in due]
        # Ends first: no thread writes into a folder that is renamed or removed.
        behind = stack.enter_context(WriteBehind())
        stack.enter_context(closing(shown))
        try:
            for seen in shown:
                silent += seen.answered.count(False)
                for row, mask in zip(seen.expressions, seen.masks, strict=True):
                    behind.call(writers[row].write, seen.index, mask)
        except ModelError as error:
            raise EvaluationError(f"{where}: {error}") from error
    return Predicted(len(due), found, len(due) * frames, silent, count.tokens)


def _key_frame(keys: KeyFrames | None, entry: VideoEntry, expression: Expression) -> int:
    """Index of the frame at which an expression begins: the first one where no file of key frames names another."""
    return (keys.position(entry.video, expression.id, entry.frame_names) if keys else None) or 0
