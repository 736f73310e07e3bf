"""Memory of two ranks while a model is started: `python benchmarks/starting_memory.py [--from drawn] [--stage 3]`.

A GLUS of 0.27 billion parameters (1.1 GB in float32), most of them Llama's, whose largest matrix has the share of the
model that GLUS-7B's has. Two gloo ranks build it and make their engine, as `glus train` does. It is drawn, read from a
checkpoint of ours, or from a release with new LoRA. This process reads /proc/RANK/status every 10 ms and prints the
largest sum over both ranks of what no file backs (RssAnon and RssShmem), less the sum before the model was built.
Mapped files do not count: the kernel drops their pages.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch
from small_segmenter import SMALL_SEGMENTER

from glus.data_pipeline.batches.tokenizer import Tokenizer
from glus.launch.commands.export import ExportConfig, export
from glus.model.model_config import LanguageConfig, ModelConfig, VisionConfig
from glus.model.trainable import build_empty
from glus.training.build import build_for_training, build_model
from glus.training.distributed import STORE, Rank
from glus.training.engines.choose import TrainingEngine, joined, make_engine
from glus.training.run_config import EngineConfig, RunConfig, WeightsConfig

TOKENIZER = Path(__file__).parents[1] / "tests" / "data" / "parity"
LANGUAGE = LanguageConfig(hidden_size=1024, intermediate_size=4096, layers=16, heads=16, key_value_heads=16)
VISION = VisionConfig(image_size=32, patch_size=8, hidden_size=64, intermediate_size=128, layers=2, heads=2)
RANKS = 2
SOURCES = ("drawn", "checkpoint", "release")


def config_of(source: str, stage: int, precision: str, folder: Path) -> RunConfig:
    """LoRA and the mask decoder are trained; the rest is frozen."""
    model = ModelConfig(language=LANGUAGE, vision=VISION, segmenter=SMALL_SEGMENTER, tokenizer=str(TOKENIZER))
    config = RunConfig(
        model=model,
        trainable=("*lora_*", "segmenter.sam2.sam_mask_decoder.*"),
        engine=EngineConfig(stage=stage, precision=precision, device="cpu"),
        out=str(folder / "run"),
        global_batch_size=4,
    )
    if source == "checkpoint":
        return replace(config, init_from=str(checkpoint_in(folder)))
    return replace(config, weights=WeightsConfig(glus=str(folder / "release"))) if source == "release" else config


def checkpoint_in(folder: Path) -> Path:
    """The checkpoint that a start is read from."""
    return folder / "step-000001"


def write_sources(config: RunConfig, folder: Path, release: bool) -> None:
    """A checkpoint, and FOLDER/release, its export. In a process of its own."""
    import json
    from dataclasses import asdict

    from glus.training.checkpoints import checkpoint
    from glus.training.checkpoints.integrity import note_digests

    tokenizer = Tokenizer(TOKENIZER)
    path = checkpoint_in(folder)
    path.mkdir(parents=True)
    state = checkpoint.RunState(1, 0, "data", "run", "code", 1, 0.5, 1.0)
    settings = json.loads(json.dumps(asdict(config), default=str))
    checkpoint.write(path, build_model(config.model, tokenizer, 0).state_dict(), state, settings, tokenizer.path)
    note_digests(path, 0)
    if release:
        export(ExportConfig(path, folder / "release", form="safetensors"))


def small(config: RunConfig) -> RunConfig:
    """The same with a language model of next to no weights, drawn."""
    language = replace(LANGUAGE, hidden_size=64, intermediate_size=64, layers=1, heads=2, key_value_heads=2)
    return replace(config, model=replace(config.model, language=language), weights=WeightsConfig(), init_from="")


def make(config: RunConfig, rank: Rank) -> TrainingEngine:
    """Build the model and its engine, as a training does."""
    built = build_for_training(config, with_weights=rank.rank == 0, late=True)
    return make_engine(config, built.model, rank, built.values)


def start(number: int, config: RunConfig, store: Path, ready: Barrier, left: list[float]) -> None:
    """One rank: joins the other, waits to be watched, starts the model."""
    names = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": RANKS, STORE: store}
    os.environ.update({name: str(value) for name, value in names.items()})
    torch.set_num_threads(1)
    rank = Rank(number, number, RANKS, on_cpu=True)
    with joined(config, rank):
        make(small(config), rank).close()  # imports what a start needs
        ready.wait()
        ready.wait()
        began = time.monotonic()
        engine = make(config, rank)
        left[number] = time.monotonic() - began
        ready.wait()
        ready.wait()
        engine.close()


def held(process: int) -> int:
    """Bytes of a process's memory that no file backs."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon", "RssShmem")))


def measure(source: str, stage: int, precision: str, folder: Path) -> None:
    """Print one row."""
    config = config_of(source, stage, precision, folder)
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        seconds, ready = manager.list([0.0] * RANKS), context.Barrier(RANKS + 1)
        store = folder / f"store-{source}-{stage}-{precision}"
        processes = [
            context.Process(target=start, args=(number, config, store, ready, seconds)) for number in range(RANKS)
        ]
        for process in processes:
            process.start()
        ready.wait()
        before = [held(process.pid) for process in processes]
        ready.wait()
        most, most_of_each, done = 0, [0] * RANKS, False
        while not done:
            now = [held(process.pid) - each for process, each in zip(processes, before, strict=True)]
            most, most_of_each = max(most, sum(now)), [max(pair) for pair in zip(most_of_each, now, strict=True)]
            time.sleep(0.01)
            done = ready.n_waiting == RANKS or any(process.exitcode for process in processes)
        after = sum(held(process.pid) - each for process, each in zip(processes, before, strict=True))
        ready.wait()
        ready.wait()
        for process in processes:
            process.join()
        took = max(seconds)
    model = build_empty(config.model, Tokenizer(TOKENIZER).vocab_size, 299)
    width = 2 if precision == "bf16" else 4
    size = sum(parameter.numel() for parameter in model.parameters()) * width * (1 if stage == 3 else RANKS)
    each = ", ".join(f"{of_rank / 1e6:,.0f}" for of_rank in most_of_each)
    print(
        f"{source}, ZeRO-{stage}, {precision}: kept {size / 1e6:,.0f} MB, most {most / 1e6:,.0f} MB "
        f"({most / size:.2f} of it; of each rank {each}), left {after / 1e6:,.0f} MB, {took:.1f} s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="source", choices=SOURCES, nargs="*", default=SOURCES)
    parser.add_argument("--stage", type=int, nargs="*", default=[3])
    parser.add_argument("--precision", choices=("bf16", "fp32"), nargs="*", default=["fp32"])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked.source != ["drawn"]:
            words = config_of("drawn", 3, "fp32", folder), folder, "release" in asked.source
            writing = multiprocessing.get_context("spawn").Process(target=write_sources, args=words)
            writing.start()
            writing.join()
        for source in asked.source:
            for stage in asked.stage:
                for precision in asked.precision:
                    measure(source, stage, precision, folder)


if __name__ == "__main__":
    main()
