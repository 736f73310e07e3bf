"""`glus submit WHAT CONFIG`: submit batch files with a snapshot of config and code version to SLURM."""

import re
import shlex
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from glus.common.errors import LaunchError
from glus.common.locks import exclusive
from glus.data_pipeline.sampling.mixture import expanded
from glus.data_pipeline.shards.prepare import PrepareConfig
from glus.launch.commands.compare import CompareConfig
from glus.launch.commands.evaluate import EvaluateConfig
from glus.launch.commands.select_frames import SelectFramesConfig
from glus.launch.config.configuration import load_config, to_yaml
from glus.launch.slurm.cluster import ClusterConfig, cluster_folder
from glus.launch.slurm.sbatch import JOBS, Batch, next_number
from glus.training.run_config import RunConfig
from glus.training.tracking.code_version import code_version


@dataclass(frozen=True)
class SubmitConfig:
    """What is to run, on how many machines of which site."""

    what: Literal["prepare", "train", "evaluate", "reproduce"]
    """A command, or `reproduce`: prepare, train, evaluate and compare in turn."""
    config: Path
    """Config file of that command; of `reproduce`, that of the training."""
    changes: tuple[str, ...] = ()
    """Overrides of that config, as key=value."""
    nodes: int = 1
    """Machines of a training, and tasks of the evaluation."""
    cluster: Path = cluster_folder() / "default.yaml"
    """The site: a file as in configs/cluster/."""
    prepare: Path | None = None
    """For `reproduce`, the config file of `glus prepare`; without it the shards must be there."""
    evaluate: Path | None = None
    """For `reproduce`, a config file of `glus evaluate`; checkpoint, shards and out are those of the training."""
    evaluate_changes: tuple[str, ...] = ()
    """Overrides of that config."""
    selector: Path | None = None
    """For `reproduce`, the config file of a key frame selector's training (configs/glus_s_kfs.yaml). The chain then
    goes on: labels of the training splits, selector, key frames, evaluation with these. Out, shards, init_from and
    sampling.frame_scores are those of the chain."""
    selector_changes: tuple[str, ...] = ()
    """Overrides of that config."""
    after: tuple[str, ...] = ()
    """Numbers of jobs that must have ended well before."""
    dry_run: bool = False
    """Print the batch files and the commands that would submit them; write nothing."""


def submit(config: SubmitConfig) -> None:
    """Submit one job, or the chain of `reproduce`; prints the number of each.

    Raises LaunchError for a config that the command would refuse, or where SLURM refuses.
    """
    if config.nodes < 1:
        raise LaunchError(f"nodes={config.nodes}: it must be at least 1")
    if any(not re.fullmatch("[0-9]+", job) for job in config.after):
        raise LaunchError(f"after={list(config.after)}: give numbers of jobs")
    site = load_config(ClusterConfig, config.cluster, [])
    chains = {"prepare": _prepare, "train": _train, "evaluate": _evaluate, "reproduce": _reproduce}
    batches = chains[config.what](config, site)
    with ExitStack() as held:
        # Else two that submit at once would take the same number.
        for out in {batch.out for batch in batches} if not config.dry_run else ():
            held.enter_context(exclusive(out / JOBS, "glus submit"))
        _submit(_numbered(batches), config)


def _submit(batches: list[Batch], config: SubmitConfig) -> None:
    """Each after the one before has ended well. Those before one that SLURM refuses stay submitted."""
    after = config.after
    for batch in batches:
        batch = replace(batch, after=after)
        if config.dry_run:
            files = ", ".join(batch.files)
            print(f"# {batch.file}, with {files}\n{batch.text()}\n# {shlex.join(batch.words())}\n")
            after = ("JOB_BEFORE",)
        else:
            after = (batch.submit(time.time()),)
            print(f"{batch.name}: job {after[0]}, {batch.file}", flush=True)


def _numbered(batches: list[Batch]) -> list[Batch]:
    counted: Counter[Path] = Counter()
    numbered = []
    for batch in batches:
        numbered.append(replace(batch, number=next_number(batch.out) + counted[batch.out]))
        counted[batch.out] += 1
    return numbered


def _prepare(config: SubmitConfig, site: ClusterConfig) -> list[Batch]:
    asked = load_config(PrepareConfig, config.config, list(config.changes))
    return [_prepare_batch(site, asked, Path(asked.out).parent)]


def _prepare_batch(site: ClusterConfig, asked: PrepareConfig, out: Path) -> Batch:
    """A job array, one dataset a task."""
    files = {
        f"prepare-{place}.yaml": to_yaml(replace(asked, datasets=[name])) for place, name in enumerate(asked.datasets)
    }
    if not files:
        raise LaunchError("datasets is empty: name some, such as mevis or mevis:train")
    batch = _batch(site, "prepare", "prepare", f"glus prepare {Path(asked.out).name}", out, files)
    return replace(batch, array=len(files))


def _train(config: SubmitConfig, site: ClusterConfig) -> list[Batch]:
    return [_train_batch(config, site, load_config(RunConfig, config.config, list(config.changes)))]


def _train_batch(config: SubmitConfig, site: ClusterConfig, run: RunConfig) -> Batch:
    batch = _batch(site, "train", "train", f"glus train {run.name}", Path(run.out), {"run.yaml": to_yaml(run)})
    return replace(
        batch,
        nodes=config.nodes,
        settings={**batch.settings, "GLUS_ATTEMPTS": str(site.attempts)},
        options=(*batch.options, f"--signal=USR2@{site.warn_seconds}"),
        note={**batch.note, "run": str(Path(run.out).absolute()), "steps": run.steps},
    )


def _evaluate(config: SubmitConfig, site: ClusterConfig) -> list[Batch]:
    return _evaluate_batches(config, site, load_config(EvaluateConfig, config.config, list(config.changes)))


def _evaluate_batches(
    config: SubmitConfig, site: ClusterConfig, asked: EvaluateConfig, out: Path | None = None, of: str = ""
) -> list[Batch]:
    """The array that predicts, and the job that gathers; `of` ends their names."""
    files = {"evaluate.yaml": to_yaml(asked)}
    names = (f"predict{of}", f"gather{of}")
    return _shared_batches(config, site, "evaluate", names, asked.checkpoint.name, out or asked.out, files)


def _shared_batches(
    config: SubmitConfig,
    site: ClusterConfig,
    command: Literal["evaluate", "select-frames"],
    names: tuple[str, str],
    title: str,
    out: Path,
    files: dict[str, str],
) -> list[Batch]:
    """The array whose tasks share the videos, and the job that ends the command."""
    share, end = (
        _batch(site, "evaluate", name, f"glus {said} {title}", out, files)
        for name, said in zip(names, (command, names[1]), strict=True)
    )
    part = {"evaluate": "score=false", "select-frames": "write=false"}[command]
    settings = {"GLUS_COMMAND": command, "GLUS_PART": part}
    shares = {**share.settings, **settings, "GLUS_SHARES": str(config.nodes)}
    return [
        replace(share, array=config.nodes, settings=shares),
        replace(end, settings={**end.settings, **settings}),
    ]


def _reproduce(config: SubmitConfig, site: ClusterConfig) -> list[Batch]:
    run = load_config(RunConfig, config.config, list(config.changes))
    out = Path(run.out)
    batches = []
    if config.prepare:
        asked = load_config(PrepareConfig, config.prepare, [f"out={run.shards}"])
        batches.append(_prepare_batch(site, asked, out))
    batches.append(_train_batch(config, site, run))
    places = [f"checkpoint={run.out}", f"shards={run.shards}", f"out={out / 'evaluation'}"]
    evaluation = load_config(EvaluateConfig, config.evaluate, [*places, *config.evaluate_changes])
    batches += _evaluate_batches(config, site, evaluation, out)
    if config.selector:
        batches += _key_frame_batches(config, site, run, evaluation)
    comparison = CompareConfig((run.out,), out / "compare", f"{run.name}, reproduced", True, run.tracking)
    files = {"compare.yaml": to_yaml(comparison)}
    return [*batches, _batch(site, "compare", "compare", f"glus compare {run.name}", out, files)]


def _key_frame_batches(
    config: SubmitConfig, site: ClusterConfig, run: RunConfig, evaluation: EvaluateConfig
) -> list[Batch]:
    """Labels of the training splits by the trained GLUS, a selector that learns them, and an evaluation with its key
    frames, the one that the comparison shows. All below the training's `out`.
    """
    out = Path(run.out)
    labels, keys = out / "labels", out / "key_frames.json"
    places = [f"out={out / 'selector'}", f"shards={run.shards}", f"init_from={out}", f"sampling.frame_scores={labels}"]
    selector = load_config(RunConfig, config.selector, [*places, *config.selector_changes])
    splits = tuple(expanded(selector.sampling.mixture))
    labelling = replace(evaluation, out=labels, splits=splits, record=False, report=False)
    selecting = SelectFramesConfig(
        Path(selector.out), run.shards, keys, evaluation.splits, evaluation.processes, evaluation.device
    )
    files = {"select.yaml": to_yaml(selecting)}
    with_keys = replace(
        evaluation, out=out / "evaluation_kfs", inference=replace(evaluation.inference, key_frames=keys)
    )
    training = _train_batch(config, site, selector)
    return [
        *_evaluate_batches(config, site, labelling, out, "-labels"),
        replace(training, name="train-selector"),
        *_shared_batches(config, site, "select-frames", ("score-frames", "select"), selector.name, out, files),
        *_evaluate_batches(config, site, with_keys, out, "-kfs"),
    ]


def _batch(site: ClusterConfig, template: str, name: str, title: str, out: Path, files: dict[str, str]) -> Batch:
    settings: dict[str, str | tuple[str, ...]] = {
        "GLUS_FOLDER": str(Path.cwd()),
        "GLUS_PYTHON": site.python or sys.executable,
        "GLUS_MODULES": site.modules,
        "GLUS_CONTAINER": site.container,
    }
    return Batch(
        template=template,
        name=name,
        title=title,
        out=out.absolute(),
        nodes=1,
        files=files,
        settings=settings,
        exported=site.environment,
        options=tuple(site.sbatch_options()),
        forward=site.forward,
        note={"code": code_version()},
    )
