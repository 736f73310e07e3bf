"""From a config to a model with its tokenizer: drawn or from a checkpoint, LoRA in place, trainable parts marked."""

from dataclasses import dataclass
from pathlib import Path

import torch

from glus.data_pipeline.tokenizer import Tokenizer
from glus.model.config import ModelConfig
from glus.model.glus import Glus
from glus.model.trainable import TrainableRow, add_lora, set_trainable
from glus.training import checkpoint
from glus.training.config import RunConfig
from glus.training.errors import TrainingError


@dataclass(frozen=True)
class Built:
    """A whole model on the CPU, its tokenizer, and the table of what is trained."""

    model: Glus
    tokenizer: Tokenizer
    trainable: list[TrainableRow]


def build_model(config: ModelConfig, tokenizer: Tokenizer, seed: int) -> Glus:
    """A freshly drawn model with LoRA in place; the same on every machine for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Glus(config, tokenizer.vocab_size, tokenizer.seg_id)
        add_lora(model, config.lora)
    return model


def build_for_training(config: RunConfig, resumed: Path | None = None) -> Built:
    """The model that a run starts with: of the checkpoint `resumed`, else of `init_from`, else freshly drawn.

    Raises ModelError, DataError or TrainingError.
    """
    start = checkpoint.resolve(Path(config.init_from)) if config.init_from and not resumed else resumed
    if start is None and not config.model.tokenizer:
        raise TrainingError("model.tokenizer is empty: name a folder with tokenizer.model")
    tokenizer = Tokenizer(
        start / checkpoint.TOKENIZER if start and not config.model.tokenizer else Path(config.model.tokenizer)
    )
    model = build_model(config.model, tokenizer, config.seed)
    if start:
        checkpoint.load_weights(model, start)
    return Built(model, tokenizer, set_trainable(model, config.trainable))
