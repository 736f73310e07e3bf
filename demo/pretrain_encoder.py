"""`glus pretrain-encoder`: an image encoder for a run without released SAM 2, in the layout of SAM 2's files."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from glus.common.atomic import atomic_open
from glus.common.progress import Progress
from glus.data_pipeline.shards.reader import open_splits
from glus.demo.image_encoder import EncoderTraining, pretrain_image_encoder
from glus.launch.config.configuration import load_config
from glus.model.sam2_parts import draw_image_encoder, look_past_memory
from glus.model.segmenter import Segmenter
from glus.training.devices import choose_device
from glus.training.run_config import RunConfig


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
