"""What is fuzzed: files that a command reads, and the command, or the part of it that reads them."""

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glus.common.errors import UserError
from glus.launch.cli import main


class NotOneLine(AssertionError):
    """A command ended otherwise than with 0, or with 2 and one line."""


@dataclass(frozen=True)
class Target:
    """Files of which one is broken at a time, and what reads them. `share` is this target's part of all inputs."""

    name: str
    files: tuple[Path, ...]
    run: Callable[[], None]
    share: float = 1.0


def command(*words: object) -> Callable[[], None]:
    """`glus WORDS`: ends with 0, or with 2 and one line that is free of control characters."""

    def run() -> None:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main([str(word) for word in words])
        lines = [line for line in err.getvalue().replace("\r", "\n").splitlines() if line.startswith("glus ")]
        if code not in (0, 2) or (code == 2 and len(lines) != 1):
            raise NotOneLine(f"exit code {code}: {err.getvalue()[-500:]!r}")
        for text in (out.getvalue(), "\n".join(lines)):
            if "\x1b" in text or "\x9b" in text:
                raise NotOneLine(f"an escape sequence reached the terminal: {text[-500:]!r}")

    return run


def reader(read: Callable[[], object]) -> Callable[[], None]:
    """A part of a command that is too slow as a whole: it returns, or raises a UserError."""

    def run() -> None:
        try:
            read()
        except UserError as error:
            if not str(error):
                raise NotOneLine("an error without a message") from error

    return run


def data_targets(demo: Path, folder: Path) -> Iterator[Target]:
    """Annotations of the six datasets with their frames and masks, shards, masks to score, key frames, scores."""
    raw = folder / "raw"
    shutil.copytree(demo / "raw", raw)
    shutil.copytree(demo / "shards", folder / "shards")
    for dataset, split in (
        ("mevis", "train"),
        ("refer_youtube_vos", "train"),
        ("ref_davis17", "valid"),
        ("revos", "train"),
        ("lv_vis", "train"),
        ("reason_vos", "valid"),
    ):
        yield _dataset(raw, dataset, split, folder / "written")
    yield from _image_datasets(raw, folder / "written")
    yield from _shards(folder)
    yield from _scores(folder)


def _dataset(raw: Path, dataset: str, split: str, out: Path) -> Target:
    from glus.data_pipeline.datasets.table import read_dataset
    from glus.data_pipeline.images.image_split import ImageSplit
    from glus.data_pipeline.raw.annotated_split import AnnotatedSplit
    from glus.data_pipeline.shards.finish import finish_split
    from glus.data_pipeline.shards.prepare import plan_jobs
    from glus.data_pipeline.shards.shard_job import ShardMaker

    def prepare() -> None:
        shutil.rmtree(out, ignore_errors=True)
        source = read_dataset(dataset, raw, split)
        jobs = plan_jobs(source, raw, out, 1)
        maker = ShardMaker()
        for job in jobs:
            maker.make(job)
        finish_split(source, jobs)

    source = read_dataset(dataset, raw, split)
    if isinstance(source, ImageSplit):
        picture = next(iter(source.source.pictures().values()))
        # The form of the files counts here, so that each is broken often.
        return Target(f"{dataset}/{split}", (*source.files, *source.files, picture), reader(prepare), 1.5)
    assert isinstance(source, AnnotatedSplit)
    video = source.videos()[0]
    pictures = sorted((source.images / video).glob("*.jpg"))[:2]
    masks = [
        path for path in sorted(raw.glob("*/**/Annotations/**/*.png")) if path.is_relative_to(source.images.parent)
    ]
    return Target(f"{dataset}/{split}", (*source.files, *source.files, *pictures, *masks[:2]), reader(prepare))


def _image_datasets(raw: Path, out: Path) -> Iterator[Target]:
    """refs(unc).p, instances.json, and ReasonSeg's JSON, of two images a split."""
    from glus.demo.synthetic.image_layouts import demo_image, one_target, write_reason_seg, write_refcoco
    from glus.demo.synthetic.world import DemoWorldConfig

    world = DemoWorldConfig(frames=4, width=48, height=32, max_objects=2)
    keys = {split: [f"{split}/{number}" for number in range(2)] for split in ("train", "val")}
    looks = {split: [demo_image(0, key, world, ("look",)) for key in found] for split, found in keys.items()}
    write_refcoco(raw, looks)
    write_reason_seg(raw, {split: [one_target(image) for image in found] for split, found in looks.items()})
    for dataset in ("refcoco", "reason_seg"):
        yield _dataset(raw, dataset, "train", out)


def _shards(folder: Path) -> Iterator[Target]:
    shards = folder / "shards" / "mevis" / "train"
    words = ("data", "stats", f"shards={folder / 'shards'}", "splits=[mevis/train]")
    yield Target("manifest", (shards / "manifest.json",), command(*words), 2)
    yield Target("index", (shards / "index.arrow",), command(*words), 0.5)
    yield Target("shard", tuple(shards.glob("*.tar")), command(*words), 0.5)

    def vouched() -> None:
        import hashlib

        manifest = json.loads((shards / "manifest.json").read_text())
        before = (shards / "manifest.json").read_bytes()
        manifest["index_sha256"] = hashlib.sha256((shards / "index.arrow").read_bytes()).hexdigest()
        (shards / "manifest.json").write_text(json.dumps(manifest))
        try:
            command(*words)()
        finally:
            (shards / "manifest.json").write_bytes(before)

    yield Target("index that the manifest vouches for", (shards / "index.arrow",), vouched)


def _scores(folder: Path) -> Iterator[Target]:
    import numpy as np

    from glus.data_pipeline.shards.reader import ShardedSplit
    from glus.evaluation.predict.key_frames import check_key_frames
    from glus.evaluation.predict.predictions import write_masks

    masks, scored = folder / "masks", folder / "scored"
    split = ShardedSplit.open(folder / "shards" / "mevis" / "valid_u")
    for number, entry in enumerate(split.videos):
        for expression in entry.expressions:
            target = split.read_target(number, expression, range(len(entry.frame_names)))
            write_masks(masks, entry, expression, np.ascontiguousarray(target))
    words = (
        "score",
        f"predictions={masks}",
        f"shards={folder / 'shards'}",
        f"out={scored}",
        "report=false",
        "workers=1",
    )
    yield Target("masks", tuple(sorted(masks.rglob("*.png")))[:3], command(*words), 2)
    command(*words)()
    (folder / "other").mkdir()
    shutil.copyfile(scored / "scores.json", folder / "other" / "scores.json")
    report = ("report", scored, folder / "other", f"out={folder / 'page'}", "examples=1")
    yield Target("scores", (folder / "other" / "scores.json",), command(*report), 2)
    keys = folder / "keys.json"
    entry = split.videos[0]
    keys.write_text(json.dumps({f"{entry.video}_{each.id}": 1 for each in entry.expressions}))
    yield Target("key frames", (keys,), reader(lambda: check_key_frames(keys, [split], accept_missing=True)))


def record_targets(demo: Path, folder: Path) -> Iterator[Target]:
    """Configs, records of runs and jobs, and everything of a checkpoint and a release but the weights' values."""
    from glus.launch.ranks.attempts import ATTEMPTS, FAILURES, Failure, decide, record_failure
    from glus.training.run_config import RunConfig

    yield from _configs(folder)
    out = folder / "run"
    yield from _checkpoint(demo, out)
    job = out / "jobs" / "1-train" / "job.json"
    job.parent.mkdir(parents=True)
    job.write_text(json.dumps({"job": "7", "what": "train", "submitted": 1e9, "nodes": 2, "steps": 9, "array": 0}))
    (out / "stopped.json").write_text(json.dumps({"step": 1, "steps": 2, "cause": "SIGTERM", "again": True}))
    (out / "tracking.json").write_text(json.dumps({"run": "a", "config": "b"}))
    _stand_in_for_squeue(folder)
    yield Target("jobs", (job, job, out / "stopped.json", out / "tracking.json"), command("jobs", out), 2)

    stopped = (out / "stopped.json").read_bytes()
    record_failure(out, Failure("host", 0, "hung", "it hung"))
    decide(RunConfig(out=str(out)), 1, 9)
    record_failure(out, Failure("host", 0, "hung", "it hung"))
    files = (out / ATTEMPTS, out / FAILURES / "host.json", out / "stopped.json")
    (out / "stopped.json").write_bytes(stopped)
    kept = {file: file.read_bytes() for file in files[1:]}

    def decided() -> None:
        attempts = files[0].read_bytes()
        try:
            decide(RunConfig(out=str(out)), 1, 9)
        finally:
            files[0].write_bytes(attempts)
            for file, content in kept.items():
                file.write_bytes(content)

    yield Target("attempts", files, reader(decided))


def _stand_in_for_squeue(folder: Path) -> None:
    """A squeue that knows no job: this machine need not have SLURM."""
    place = folder / "bin" / "squeue"
    place.parent.mkdir()
    place.write_text("#!/bin/sh\n")
    place.chmod(0o755)
    os.environ["PATH"] = f"{place.parent}:{os.environ['PATH']}"


def _configs(folder: Path) -> Iterator[Target]:
    for name in ("train", "compare", "evaluate"):
        config = folder / f"{name}.yaml"
        text = {
            "train": (Path(__file__).parents[1] / "tiny_run.yaml").read_text(),
            "compare": "runs: [a, b]\nout: x\ntracking: {uri: 'sqlite:///a.db', experiment: b}\n",
            "evaluate": "checkpoint: a\nshards: b\nout: c\nsplits: [a/b]\ninference: {context_frames: 2}\n",
        }[name]
        config.write_text(text)
        yield Target(f"{name}.yaml", (config,), command(name, config, "--print-config"), 2)


def _checkpoint(demo: Path, out: Path) -> Iterator[Target]:
    """A checkpoint as training writes it, and its export, both without training."""
    from glus.data_pipeline.batches.tokenizer import Tokenizer
    from glus.data_pipeline.sampling.sample_plan import SamplingConfig
    from glus.evaluation.predict.provenance import Provenance, claim, record
    from glus.training.checkpoints import checkpoint
    from glus.training.checkpoints.integrity import find_corruption, note_digests
    from glus.training.pretrained import check_released
    from glus.training.release_info import read_release
    from glus.training.run_config import WeightsConfig
    from glus.training.tracking.run_record import read_unsent, run_of_folder
    from tests.untrained import write_checkpoint

    path = write_checkpoint(demo, out)
    tokenizer = Tokenizer(path / "tokenizer")
    (path / "tokenizer" / "added_tokens.json").write_text(json.dumps(tokenizer.added))
    (path / "tokenizer" / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    note_digests(path, 0)
    release = out / "release"
    assert main(["export", str(path), f"out={release}"]) == 0

    def resumed() -> None:
        checkpoint.read_state(path)
        checkpoint.read_run_config(path)
        find_corruption(path)
        read_unsent(path)
        run_of_folder(out) if (out / "tracking.json").exists() else None

    files = tuple(path / name for name in ("run.json", "config.json", "digests/rank-0000.json", "unsent.json"))
    yield Target("checkpoint", files, reader(resumed), 2)
    small = (path / "run.json", path / "config.json", *sorted((path / "tokenizer").iterdir()))

    def exported() -> None:
        shutil.rmtree(out / "again", ignore_errors=True)
        command("export", path, f"out={out / 'again'}")()

    yield Target("export", small, exported, 0.4)
    yield Target(
        "tokenizer", tuple(sorted((path / "tokenizer").iterdir())), reader(lambda: Tokenizer(path / "tokenizer"))
    )

    def opened() -> None:
        weights = WeightsConfig(glus=str(release))
        check_released(weights, read_release(weights).model, Tokenizer(release))

    described = [release / "glus_model.json", release / "config.json", release / "added_tokens.json"]
    described += [release / "tokenizer_config.json", *sorted((release / "clip_vision_tower").glob("*.json"))]
    yield Target("release", tuple(described), reader(opened))

    class Source:
        """Stands for a model of which the folder, step and digest are known."""

        folder, step = path, 1
        method, sampling = "glus", SamplingConfig()

        def digest(self) -> str:
            return "digest"

    from glus.data_pipeline.shards.reader import open_splits
    from glus.evaluation.predict.inference_config import InferenceConfig

    splits, made = open_splits(demo / "shards"), out / "made"
    made.mkdir()
    source: Any = Source()
    before = claim(made, source, InferenceConfig(precision="fp32").recorded(), splits)

    def claimed() -> None:
        content = (made / "predictions.json").read_bytes()
        try:
            claim(made, source, InferenceConfig(precision="fp32").recorded(), splits)
        finally:
            (made / "predictions.json").write_bytes(content)

    assert isinstance(before, Provenance)
    record(made, before)
    yield Target("predictions", (made / "predictions.json",), reader(claimed))
