"""Build the model and tokenizer of a config: freshly drawn, released, or of a checkpoint; LoRA added, parts frozen."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from glus.common.errors import TrainingError
from glus.data_pipeline.batches.tokenizer import Tokenizer
from glus.model.compiling import compile_parts
from glus.model.gradient_checkpointing import recompute_activations
from glus.model.methods import AnyModel, model_class
from glus.model.model_config import ModelConfig
from glus.model.released.late_values import LateValues
from glus.model.released.release_sums import check_sums
from glus.model.trainable import TrainableRow, add_lora, build_empty, set_trainable
from glus.training.checkpoints import checkpoint
from glus.training.checkpoints.complete_weights import load_weights
from glus.training.checkpoints.integrity import check_model_files, without_digests
from glus.training.checkpoints.starting import part_of
from glus.training.hub_weights import fetch_weights
from glus.training.pretrained import check_released, load_released
from glus.training.release_info import without_sums
from glus.training.run_config import RunConfig


@dataclass(frozen=True)
class Built:
    """A model on the CPU (or empty), its tokenizer, what is trained, and lines to print about released weights.

    `values` makes those of its parameters that are on the meta device; None where nothing does, or none is there.
    """

    model: AnyModel
    tokenizer: Tokenizer
    trainable: list[TrainableRow]
    notes: tuple[str, ...] = ()
    values: LateValues | None = None


def build_model(config: ModelConfig, tokenizer: Tokenizer, seed: int, values: LateValues | None = None) -> AnyModel:
    """A freshly drawn model with LoRA in place; the same on every machine for the same seed.

    With `values` large parameters are on the meta device, drawn when they are asked for: to the same numbers.
    """
    with torch.random.fork_rng(devices=[]), values.drawing_later() if values else nullcontext() as take_notes:
        torch.manual_seed(seed)
        model = model_class(config.method)(config, tokenizer.vocab_size, tokenizer.seg_id)
        add_lora(model, config.lora)
    if take_notes:
        take_notes(model)
    return model


def build_to_count(config: RunConfig, vocab_size: int, seg_id: int) -> AnyModel:
    """An empty model for counting parameters, FLOP and bytes, trained parts set; it needs neither GPU nor flash-attn.

    Attention is torch's: flash-attn takes as many FLOP and bytes, but does not run on the meta device.
    """
    language = replace(config.model.language, attention="sdpa")
    model = build_empty(replace(config.model, language=language), vocab_size, seg_id)
    set_trainable(model, config.trainable)
    return model


def build_for_training(
    config: RunConfig, resumed: Path | None = None, with_weights: bool = True, late: bool = False
) -> Built:
    """The model that a run starts with: of the checkpoint `resumed`, else of `init_from`, else of `weights`.

    What none of them holds is freshly drawn. Without `with_weights` nothing is read: the model is empty, for rank 0 to
    fill. With `late` all is checked, but large parameters are on the meta device until `Built.values` makes them.
    Raises ModelError, DataError or TrainingError, where it can before anything is read.
    """
    start = checkpoint.resolve(Path(config.init_from)) if config.init_from and not resumed else resumed
    notes: list[str] = []
    if start is None:
        weights, notes = fetch_weights(config.weights)
        config = replace(config, weights=weights)
    tokenizer = Tokenizer(_tokenizer_place(config, start))
    if start is None:
        check_released(config.weights, config.model, tokenizer)
        notes += without_sums(config.weights)
    elif not resumed:
        notes += without_digests(start)
        check_model_files(start, weights=False)  # before its config is read; the weights follow
    model = build_empty(config.model, tokenizer.vocab_size, tokenizer.seg_id)
    rows = set_trainable(model, config.trainable)
    values = None
    if with_weights:
        # Compared with the empty model first: what does not fit takes no memory.
        _fill(model, config, tokenizer, start)
        # A resumed run has checked its checkpoint already.
        if start and not resumed:
            check_model_files(start)
        elif config.weights.complete and not start:
            check_sums(Path(config.weights.complete[1]))
        values = LateValues()
        if start is None or part_of(config.model.method, start):
            model = build_model(config.model, tokenizer, config.seed, values)
        # Else the checkpoint holds all of it, and nothing need be drawn.
        notes += _fill(model, config, tokenizer, start, values)
        rows = set_trainable(model, config.trainable)
        if not late:
            values.fill_model(model)
            values = None
    compile_parts(model, config.engine.compile, "engine.compile")
    if config.engine.gradient_checkpointing:
        recompute_activations(model)
    return Built(model, tokenizer, rows, tuple(notes), values)


def _fill(
    model: AnyModel, config: RunConfig, tokenizer: Tokenizer, start: Path | None, values: LateValues | None = None
) -> Sequence[str]:
    """Load the weights of a checkpoint, or the released ones; without `values` only compare. Lines for the user."""
    if start:
        part = part_of(config.model.method, start)
        load_weights(model, start, part, values)
        if part is None:
            return ()
        left_out, fresh = (" and ".join(f"{each}*" for each in names) for names in (part.left_out, part.fresh))
        return (f"{start}: all taken but {left_out}; freshly drawn: {fresh}",)
    return load_released(model, config.weights, tokenizer, config.seed, values)


def build_from_checkpoint(folder: Path) -> tuple[AnyModel, Tokenizer, RunConfig]:
    """The model of a checkpoint folder with its tokenizer and its run's config. Raises TrainingError or ModelError.

    Its attention is torch's own: outside training the model is in float32, which flash-attn does not compute.
    """
    config = checkpoint.read_run_config(folder)
    tokenizer = Tokenizer(folder / checkpoint.TOKENIZER)
    language = replace(config.model.language, attention="sdpa")
    sizes = replace(config.model, language=language)
    model, values = build_empty(sizes, tokenizer.vocab_size, tokenizer.seg_id), LateValues()
    load_weights(model, folder, values=values)
    values.fill_model(model)
    return model, tokenizer, config


def _tokenizer_place(config: RunConfig, start: Path | None) -> Path:
    """`model.tokenizer`, else that of the checkpoint, else that of the released language model."""
    if config.model.tokenizer:
        return Path(config.model.tokenizer)
    if start:
        return start / checkpoint.TOKENIZER
    if not config.weights.tokenizer:
        raise TrainingError("model.tokenizer is empty: name a folder with tokenizer.model")
    return Path(config.weights.tokenizer)
