"""A checkpoint of a run that was never trained: as training writes it, in a second."""

import json
from dataclasses import asdict
from pathlib import Path

from glus.data_pipeline.batches.tokenizer import Tokenizer
from glus.launch.config.configuration import load_config
from glus.training.build import build_model
from glus.training.checkpoints import checkpoint
from glus.training.checkpoints.integrity import note_digests
from glus.training.run_config import RunConfig

#: What makes tests/tiny_run.yaml a key frame selector's run.
SELECTOR = (
    "model.method=selector",
    "model.loss.contrastive=0",
    "sampling.frame_choice=references",
    "sampling.prompts=selector_short",
    "sampling.context_frames=4",
    "sampling.query_frames=1",
)


def write_checkpoint(demo: Path, out: Path, *changes: str, seed: int = 0) -> Path:
    """OUT/checkpoints/step-000001 of tests/tiny_run.yaml with `changes`, without an engine's state."""
    tokenizer = Tokenizer(demo / "raw" / "tokenizer.model")
    places = [f"out={out}", f"shards={demo}/shards", f"model.tokenizer={tokenizer.path}"]
    config = load_config(RunConfig, Path(__file__).with_name("tiny_run.yaml"), [*places, *changes])
    path = out / "checkpoints" / checkpoint.name_of(1)
    path.mkdir(parents=True)
    state = checkpoint.RunState(1, 0, "data", "run", "code", 1, 0.5, 1.0)
    settings = json.loads(json.dumps(asdict(config), default=str))
    checkpoint.write(path, build_model(config.model, tokenizer, seed).state_dict(), state, settings, tokenizer.path)
    (path / "unsent.json").write_text(json.dumps([["loss", 1.5, 3, 1], ["norm", 2.0, 4, 1]]))
    note_digests(path, 0)
    return path
