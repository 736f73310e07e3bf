"""`glus pretrain-encoder`: pretrain SAM 2's image encoder on its own; each pixel predicts the words said of its object.

For models without released weights. GLUS keeps SAM 2's image encoder as Meta trained it; a freshly drawn one learns
colours from the mask losses and little else (docs/log.md), so it is pretrained first. A word counts for a video that
says it of some of its objects and not of others.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from glus.common.atomic import atomic_open
from glus.common.errors import TrainingError
from glus.common.progress import Progress
from glus.common.seeds import numpy_generator
from glus.data_pipeline.batches.prompt_style import clean_expression
from glus.data_pipeline.shards.reader import ShardedSplit, VideoEntry, open_splits
from glus.launch.config.configuration import load_config
from glus.model.preprocess import for_segmenter
from glus.model.sam2_parts import draw_image_encoder, look_past_memory
from glus.model.segmenter import Segmenter
from glus.training.devices import choose_device
from glus.training.run_config import RunConfig


@dataclass(frozen=True)
class EncoderTraining:
    """How long and on how much data the image encoder is pretrained."""

    steps: int = 1500
    """Optimiser steps."""
    frames: int = 8
    """Frames of one step, each of another video."""
    learning_rate: float = 1e-3
    """Highest learning rate, reached after warm-up."""
    warmup_steps: int = 20
    """Steps of linear warm-up."""
    words: int = 1000
    """The most frequent words are learned, so many at most."""

    def __post_init__(self) -> None:
        for name in ("steps", "frames", "words"):
            if getattr(self, name) < 1:
                raise TrainingError(f"training.{name}={getattr(self, name)}: it must be at least 1")
        if not 0 < self.learning_rate < 1:
            raise TrainingError(f"training.learning_rate={self.learning_rate}: it must be between 0 and 1")


@dataclass(frozen=True)
class VideoWords:
    """What is said in one video: object ids, and float32 [O, W]: 1 where word w is said of it, 0 not, NaN unknown."""

    split: int
    video: int
    objects: tuple[str, ...]
    words: NDArray[np.float32]


def video_words(splits: Sequence[ShardedSplit], most: int) -> tuple[list[str], list[VideoWords]]:
    """Return the words that distinguish objects of one video, the most frequent first, and what is said where.

    Raises TrainingError where no video has two objects of which different things are said.
    """
    said = [
        (number, video, _said(entry)) for number, split in enumerate(splits) for video, entry in enumerate(split.videos)
    ]
    counts = Counter(word for _, _, of_video in said for word in _distinctive(of_video))
    words = [word for word, _ in counts.most_common(most)]
    place = {word: number for number, word in enumerate(words)}
    videos = []
    for number, video, of_video in said:
        known = [word for word in _distinctive(of_video) if word in place]
        if not known:
            continue
        table = np.full((len(of_video), len(words)), np.nan, dtype=np.float32)
        for row, own in enumerate(of_video.values()):
            for word in known:
                table[row, place[word]] = word in own
        videos.append(VideoWords(number, video, tuple(of_video), table))
    if not videos:
        raise TrainingError("no video of these splits has two objects of which different words are said")
    return words, videos


def _said(entry: VideoEntry) -> dict[str, set[str]]:
    """Object id -> the words of all expressions that name this object alone."""
    said: dict[str, set[str]] = {}
    for expression in entry.expressions:
        if len(expression.object_ids) == 1:
            words = clean_expression(expression.text).replace("?", "").split()
            said.setdefault(str(next(iter(expression.object_ids))), set()).update(words)
    return said


def _distinctive(said: dict[str, set[str]]) -> list[str]:
    counts = Counter(word for words in said.values() for word in words)
    return sorted(word for word, count in counts.items() if count < len(said))


class WordsOfPixels(nn.Module):
    """Logits of words at every place of SAM 2's finest features, from those and the coarsest."""

    def __init__(self, segmenter: Segmenter, words: int) -> None:
        super().__init__()
        self.segmenter = segmenter
        width = segmenter.config.hidden_dim
        self.fine, self.coarse = nn.Conv2d(width // 8, words, 1), nn.Conv2d(width, words, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: float [N, 3, S, S], normalised. Returns float [N, S/4, S/4, W]."""
        features = self.segmenter.encode(pixels).levels
        coarse = F.interpolate(self.coarse(features[-1]), size=features[0].shape[-2:], mode="bilinear")
        return (self.fine(features[0]) + coarse).permute(0, 2, 3, 1)


def pretrain_image_encoder(
    segmenter: Segmenter,
    splits: Sequence[ShardedSplit],
    config: EncoderTraining,
    seed: int,
    after_step: Callable[[int, float], None],
) -> float:
    """Train the image encoder of `segmenter` in place, in this process, on its device; calls `after_step(step, loss)`.

    Its config must let gradients into the image encoder (`train_image_encoder`). Returns the root mean square of the
    coarsest features, over the last step's frames.

    The frames of a step depend on (seed, step) alone. Raises TrainingError as `video_words`, DataError for
    a frame that cannot be read.
    """
    if not segmenter.config.train_image_encoder:
        raise TrainingError("model.segmenter.train_image_encoder is false: the image encoder would learn nothing")
    words, videos = video_words(splits, config.words)
    device = next(segmenter.parameters()).device
    model = WordsOfPixels(segmenter, len(words)).to(device)
    learning = [*segmenter.sam2.image_encoder.parameters(), *model.fine.parameters(), *model.coarse.parameters()]
    optimizer = torch.optim.AdamW(learning, lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    size = segmenter.config.image_size
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _factor(step, config)
        drawn = _batch(splits, videos, config.frames, size, (seed, step), segmenter)
        pixels, target = (each.to(device) for each in drawn)
        loss = _loss(model(pixels), target)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        after_step(step, loss.item())
    with torch.no_grad():
        return float(segmenter.encode(pixels).levels[-1].square().mean().sqrt())


def _factor(step: int, config: EncoderTraining) -> float:
    """Linear warm-up; over the last 30 % of the steps linear decay."""
    return min(1.0, (step + 1) / config.warmup_steps, (config.steps - step) / (0.3 * config.steps))


def _loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy over the words that are known of each pixel's object; 0 where none is."""
    known = ~target.isnan()
    if not known.any():
        return logits.sum() * 0
    return F.binary_cross_entropy_with_logits(logits[known], target[known])


def _batch(
    splits: Sequence[ShardedSplit],
    videos: Sequence[VideoWords],
    frames: int,
    size: int,
    key: tuple[int, int],
    segmenter: Segmenter,
) -> tuple[Tensor, Tensor]:
    """Frames float [N, 3, S, S] and the words of each place, float [N, S/4, S/4, W] with NaN where unknown."""
    random = numpy_generator(*key)
    pixels, targets = [], []
    for number in random.integers(len(videos), size=frames):
        each = videos[int(number)]
        split = splits[each.split]
        frame = int(random.integers(len(split.videos[each.video].frame_names)))
        picture = torch.from_numpy(split.read_frames(each.video, [frame])).permute(0, 3, 1, 2)
        config = segmenter.config
        pixels.append(for_segmenter(picture, size, config.mean, config.std, torch.float32))
        masks = split.read_masks(each.video, each.objects, [frame])[:, 0]
        targets.append(_words_of_places(masks, each.words, size // 4))
    return torch.cat(pixels), torch.from_numpy(np.stack(targets))


def _words_of_places(masks: NDArray[np.bool_], words: NDArray[np.float32], grid: int) -> NDArray[np.float32]:
    """float32 [grid, grid, W] for masks bool [O, H, W']; NaN outside of all objects."""
    rows = np.full((*masks.shape[1:], 1), 0, dtype=np.uint8)
    for row, mask in enumerate(masks):
        rows[mask] = row + 1
    small = cv2.resize(rows, (grid, grid), interpolation=cv2.INTER_NEAREST_EXACT)  # the pixel in the middle
    nothing = np.full((1, words.shape[1]), np.nan, dtype=np.float32)
    return np.concatenate([nothing, words])[small]


@dataclass(frozen=True)
class PretrainEncoderConfig:
    """For which run, how long, and where to."""

    out: Path
    """File to write: all of SAM 2, its image encoder pretrained, the rest as drawn. `weights.segmenter` takes it."""
    run: Path
    """Config file of the run: its sizes of SAM 2, its shards, the splits of its mixture, its seed."""
    run_changes: tuple[str, ...] = ()
    """Overrides for the run, as key=value."""
    training: EncoderTraining = field(default_factory=EncoderTraining)


def pretrain_encoder(config: PretrainEncoderConfig) -> None:
    """Pretrain on the run's `engine.device` and write. The memory is not trained: it starts by changing nothing.

    Raises TrainingError, ModelError, DataError or LaunchError; then nothing is written.
    """
    run = load_config(RunConfig, config.run, list(config.run_changes))
    splits = open_splits(Path(run.shards), [name for name, weight in run.sampling.mixture.items() if weight > 0])
    device = torch.device(choose_device(run.engine.device))
    torch.manual_seed(run.seed)
    segmenter = Segmenter(replace(run.model.segmenter, train_image_encoder=True))
    draw_image_encoder(segmenter.sam2.image_encoder.trunk)
    segmenter.to(device)
    with Progress(total=config.training.steps, desc="image encoder", unit="step") as bar:

        def show(step: int, loss: float) -> None:
            if step % 10 == 0:
                bar.set_postfix(loss=f"{loss:.3f}")
            bar.update()

        length = pretrain_image_encoder(segmenter, splits, config.training, run.seed, show)
    look_past_memory(segmenter.sam2.memory_attention, length)
    with atomic_open(config.out) as file:
        torch.save({"model": segmenter.cpu().sam2.state_dict()}, file)
