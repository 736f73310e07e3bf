"""`glus study` on tiny real components: killed in the middle it goes on, and its report says what the scores say."""

import csv
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest

from glus.launch import cli
from glus.launch.config.yaml_text import format_yaml
from glus.training.run_config import RunConfig
from glus.training.tracking.recorded_runs import find_tagged_runs
from glus.training.tracking.tracking_place import TrackingConfig
from tests.running import written
from tests.warm.starting import LAUNCHER

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ARMS = ("all", "other_rate", "memory_off_asked")
SPLITS = ("mevis/train", "mevis/valid_u")


def study_file(folder: Path, run: RunConfig, start: Path) -> Path:
    """Three arms, of which one is only asked in another way; one seed."""
    folder.mkdir()
    study = {
        "name": "short",
        "out": str(folder / "out"),
        "shards": str(run.shards),
        "start": str(start),
        "seeds": [0],
        "trainings": {"main": {"config": str(written(run, folder)), "changes": ["steps=2"]}},
        "arms": {
            "all": {"title": "all of it"},
            "memory_off_asked": {"trained_by": "all", "evaluate": ["inference.use_memory=false"]},
            "other_rate": {
                "title": "another rate",
                "train": ["optimizer.learning_rate=0.05", "optimizer.warmup_steps=0"],
            },
        },
        "evaluate_changes": ["processes=1"],
        "evaluations": {
            "usual": {"splits": list(SPLITS)},
            "later": {"splits": [SPLITS[1]], "changes": ["inference.prompted_frames=first"], "arms": ["all"]},
        },
        "measures": {
            "jf": {"metric": "JF", "title": "J&F"},
            "accuracy": {"metric": "object_accuracy", "splits": [SPLITS[0]], "title": "accuracy, train"},
            "later": {"metric": "JF", "evaluation": "later"},
        },
        "curve": {"training": "main", "every": 1, "split": SPLITS[1], "accuracy": 99.0},
        "tracking": {"experiment": "short"},
    }
    file = folder / "study.yaml"
    file.write_text(format_yaml(study), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def run(tiny_run: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return tiny_run(tmp_path_factory.mktemp("study_run") / "unused", "steps=5")


@pytest.fixture(scope="module")
def killed(
    run: RunConfig, answering_run: Path, tmp_path_factory: pytest.TempPathFactory, warm_python: Path
) -> tuple[Path, str]:
    """A study that SIGKILL ended in its fifth stage, and that then went on: its file, and what it printed then."""
    file = study_file(tmp_path_factory.mktemp("study") / "killed", run, answering_run)
    words = [sys.executable, "-P", "-c", LAUNCHER, str(warm_python), "study", str(file)]
    record = file.parent / "out" / "stages.json"
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None and len(stages_of(record)) < 5:
            time.sleep(0.05)
        time.sleep(1)
        assert process.poll() is None, "it ended before it could be killed"
    finally:
        process.kill()
        process.wait()
    assert sum(stages_of(record).values()) == 4
    done = subprocess.run(words, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return file, done.stdout


def stages_of(record: Path) -> dict[str, bool]:
    """Name of each stage that was begun -> whether it ended."""
    if not record.is_file():
        return {}
    return {name: each["ended"] for name, each in json.loads(record.read_text(encoding="utf-8"))["stages"].items()}


def values_on_disk(out: Path, arm: str, evaluation: str, metric: str, splits: tuple[str, ...] = ()) -> dict[str, float]:
    """Of each expression, from scores.csv."""
    with (out / "seed-0" / arm / "eval" / evaluation / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        "/".join(row[name] for name in ("dataset", "split", "video", "expression")): float(row[metric])
        for row in rows
        if row[metric] and (not splits or f"{row['dataset']}/{row['split']}" in splits)
    }


def table(report: str, title: str) -> dict[str, list[str]]:
    """Arm -> cells of the table below a heading of study.md."""
    section = re.split(r"^## ", report, flags=re.MULTILINE)
    [found] = [part for part in section if part.startswith(f"{title}\n")]
    rows = [line.strip("| ").split(" | ") for line in found.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows[2:]}


def test_a_killed_study_goes_on_and_does_nothing_twice(killed: tuple[Path, str]) -> None:
    file, printed = killed
    assert printed.count("done before") == 4
    assert len(re.findall(r"^\[\d+/10\] ", printed, flags=re.MULTILINE)) == 10
    assert all(stages_of(file.parent / "out" / "stages.json").values())


def test_the_report_says_what_the_scores_on_disk_say(killed: tuple[Path, str]) -> None:
    out = killed[0].parent / "out"
    report = (out / "study.md").read_text(encoding="utf-8")
    titles = {"all": "all of it", "other_rate": "another rate", "memory_off_asked": "memory off asked"}
    for title, metric, splits in (("J&F", "JF", SPLITS), ("accuracy, train", "object_accuracy", SPLITS[:1])):
        shown = table(report, title)
        base = values_on_disk(out, "all", "usual", metric, splits)
        for arm in ARMS:
            own = values_on_disk(out, arm, "usual", metric, splits)
            assert own.keys() == base.keys()
            assert float(shown[titles[arm]][0]) == pytest.approx(fmean(own.values()), abs=0.051)
            if arm != "all":
                gap = fmean(own[name] - base[name] for name in base)
                assert float(shown[titles[arm]][2]) == pytest.approx(gap, abs=0.051)
                low, high = (float(each) for each in shown[titles[arm]][3].split(" to "))
                assert low - 0.051 <= gap <= high + 0.051
    later = values_on_disk(out, "all", "later", "JF")
    assert float(table(report, "later")["all of it"][0]) == pytest.approx(fmean(later.values()), abs=0.051)
    assert "there is one seed" in report and "seeds 0." in report


def test_the_curve_is_that_of_the_checkpoints(killed: tuple[Path, str]) -> None:
    out = killed[0].parent / "out"
    for arm in ("all", "other_rate"):
        assert sorted(each.name for each in (out / "seed-0" / arm / "curve").iterdir()) == [
            "step-000001",
            "step-000002",
        ]
    assert set(table((out / "study.md").read_text(encoding="utf-8"), "Steps to 99 %")) == {
        "all of it",
        "another rate",
    }


def test_runs_are_found_in_mlflow_by_their_tags(killed: tuple[Path, str]) -> None:
    out = killed[0].parent / "out"
    place = TrackingConfig(f"sqlite:///{out / 'mlflow.db'}", "short")
    evaluations = find_tagged_runs(place, {"study": "short", "kind": "evaluation"})
    assert sorted((run.tags["arm"], run.tags["seed"], run.tags["evaluation"]) for run in evaluations) == [
        ("all", "0", "later"),
        ("all", "0", "usual"),
        ("memory_off_asked", "0", "usual"),
        ("other_rate", "0", "usual"),
    ]
    assert all("eval/overall/switches" in run.metrics or "eval/overall/JF" in run.metrics for run in evaluations)
    trainings = find_tagged_runs(place, {"study": "short", "kind": "training"})
    assert {(run.tags["arm"], run.tags["training"], run.params["seed"]) for run in trainings} == {
        ("all", "main", "0"),
        ("other_rate", "main", "0"),
    }


def test_pictures_are_of_the_median_expression(killed: tuple[Path, str]) -> None:
    out = killed[0].parent / "out"
    assert {each.name for each in (out / "overlays").iterdir()} == {"memory_off_asked.png", "other_rate.png"}
    page = (out / "study.html").read_text(encoding="utf-8")
    first, other = (values_on_disk(out, arm, "usual", "JF", SPLITS[:1]) for arm in ("all", "other_rate"))
    gaps = sorted(other[name] - first[name] for name in first)
    assert f"by the median of all its expressions ({gaps[(len(gaps) - 1) // 2]:+z.1f})" in page


@pytest.mark.usefixtures("warm")
def test_another_run_of_the_same_study_reports_the_same(
    killed: tuple[Path, str], run: RunConfig, answering_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = study_file(tmp_path / "again", run, answering_run)
    assert cli.main(["study", str(file)]) == 0
    first, second = ((each.parent / "out" / "study.md").read_text(encoding="utf-8") for each in (killed[0], file))
    assert first == second


def test_what_was_made_with_other_settings_is_refused_and_kept(
    killed: tuple[Path, str], capfd: pytest.CaptureFixture[str]
) -> None:
    file = killed[0]
    assert cli.main(["study", str(file), "train=[steps=3]"]) == 2
    assert "seed-0/all/main was made with other settings (words; " in capfd.readouterr().err
    assert (file.parent / "out" / "seed-0" / "all" / "main" / "checkpoints").is_dir()


def test_a_report_of_a_part_names_what_is_missing(killed: tuple[Path, str], capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["study", str(killed[0]), "report_only=true", "seeds=[0, 1]", "pictures=false"]) == 0
    printed = capfd.readouterr().out
    assert "INCOMPLETE: 4 evaluations are missing: all of seed 1 (usual)" in printed and "done before" not in printed
    # As it was, for the other tests.
    assert cli.main(["study", str(killed[0]), "report_only=true"]) == 0
