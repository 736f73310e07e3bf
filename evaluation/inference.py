"""A model and shards in, masks on disk out. What is on disk already is not predicted again."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from glus.data_pipeline.batch import padded_ids
from glus.data_pipeline.prompts import inference_prompt, templates_named
from glus.data_pipeline.reader import ShardedSplit
from glus.data_pipeline.records import Expression
from glus.data_pipeline.sampling import middle_context
from glus.data_pipeline.tokenizer import Tokenizer
from glus.evaluation.inference_config import InferenceConfig, Predicted
from glus.evaluation.predictions import expression_folder, write_masks
from glus.model.glus import Glus
from glus.training import checkpoint
from glus.training.build import build_model
from glus.training.config import RunConfig


@dataclass(frozen=True)
class Loaded:
    """A model ready to predict, with the config and the tokenizer of its run."""

    model: Glus
    tokenizer: Tokenizer
    config: RunConfig
    tracking_run: str


def load(path: Path, device: torch.device) -> Loaded:
    """The model of a run folder or checkpoint folder, in eval mode. Raises TrainingError or ModelError."""
    folder = checkpoint.resolve(path)
    config = checkpoint.read_run_config(folder)
    tokenizer = Tokenizer(folder / checkpoint.TOKENIZER)
    model = build_model(config.model, tokenizer, config.seed)
    checkpoint.load_weights(model, folder)
    return Loaded(model.eval().to(device), tokenizer, config, checkpoint.read_state(folder).tracking_run)


def predict_split(
    loaded: Loaded,
    split: ShardedSplit,
    out: Path,
    config: InferenceConfig,
    device: torch.device,
    part: tuple[int, int] = (0, 1),
    progress: bool = True,
) -> Predicted:
    """Predict every expression of every part[1]-th video, starting from video part[0], and write its masks.

    Raises DataError where a frame cannot be read.
    """
    done = Predicted(0, 0, 0, 0)
    videos = range(part[0], len(split.videos), part[1])
    for video in tqdm(videos, desc=f"segment {split.dataset}/{split.split}", unit="video", disable=not progress):
        entry = split.videos[video]
        due = [each for each in entry.expressions if not expression_folder(out, entry, each).is_dir()]
        done = _add(done, Predicted(0, len(entry.expressions) - len(due), 0, 0))
        for start in range(0, len(due), config.expressions_together):
            done = _add(
                done,
                _predict(loaded, split, video, due[start : start + config.expressions_together], out, config, device),
            )
    return done


def _predict(
    loaded: Loaded,
    split: ShardedSplit,
    video: int,
    expressions: Sequence[Expression],
    out: Path,
    config: InferenceConfig,
    device: torch.device,
) -> Predicted:
    entry, sampling = split.videos[video], loaded.config.sampling
    count = len(entry.frame_names)
    masks = np.zeros((len(expressions), count, entry.height, entry.width), dtype=np.bool_)
    silent = 0

    def frame(index: int) -> Tensor:
        picture = split.read_frames(video, [index])[0]
        return torch.from_numpy(picture).permute(2, 0, 1).to(device)

    words = templates_named(sampling.prompts)

    def prompts(queries: int) -> tuple[Tensor, Tensor]:
        texts = [
            inference_prompt(each.text, sampling.context_frames, queries, config.trailing_blank, words)
            for each in expressions
        ]
        rows = [loaded.tokenizer.encode_with_images(text) for text in texts]
        ids, attention = padded_ids(rows, loaded.tokenizer.pad_id)
        return ids.to(device), attention.to(device)

    context = middle_context(count, sampling.context_frames)
    for seen in loaded.model.segment_video(
        frame, count, context, prompts, window=sampling.query_frames, memory_stride=config.memory_stride
    ):
        shown = (seen.logits > 0) & seen.answered[:, None, None]
        masks[:, seen.index] = shown.cpu().numpy()
        silent += int((~seen.answered).sum())
    for expression, of_expression in zip(expressions, masks, strict=True):
        write_masks(out, entry, expression, of_expression)
    return Predicted(len(expressions), 0, len(expressions) * count, silent)


def _add(one: Predicted, other: Predicted) -> Predicted:
    return Predicted(
        one.expressions + other.expressions,
        one.found + other.found,
        one.frames + other.frames,
        one.frames_without_seg + other.frames_without_seg,
    )
