"""`glus demo`: stages run once, run again where something they depend on changed, and stop at the first that fails."""

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from glus.common.errors import LaunchError
from glus.demo.demo_davis import root_of
from glus.demo.demo_stages import STARTED, set_up_seconds
from glus.launch import cli
from glus.launch.peak_memory import MemoryWatch
from glus.launch.stages import Stage, StageFailed, Stages

pytestmark = pytest.mark.slow


def drawing(out: Path, name: str, *words: str, after: tuple[Path, ...] = ()) -> Stage:
    """A quick real stage: one demo video a split."""
    small = ("train_videos=1", "valid_videos=1", "world.frames=4", "world.max_objects=2")
    made = out / name
    return Stage(name, ("demo-data", f"root={made}", *small, *words), makes=(made,), inputs=after)


def two_stages(out: Path, *words: str) -> list[str]:
    """Which of two stages ran; the second depends on what the first made."""
    stages = Stages(out, total=2)
    stages.run(drawing(out, "first", *words))
    stages.run(drawing(out, "second", after=(out / "first" / "demo_data.json",)))
    return stages.ran


def test_what_is_done_is_skipped_and_a_change_runs_all_that_depends_on_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert two_stages(tmp_path) == ["first", "second"]
    capfd.readouterr()
    assert two_stages(tmp_path) == []
    assert capfd.readouterr().out.count("done before") == 2
    assert two_stages(tmp_path, "seed=5") == ["first", "second"]
    assert json.loads((tmp_path / "first" / "demo_data.json").read_text(encoding="utf-8"))["seed"] == 5
    for file in sorted((tmp_path / "second").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    (tmp_path / "second").rmdir()
    assert two_stages(tmp_path, "seed=5") == ["second"]


def test_a_stage_that_did_not_end_goes_on_with_what_it_made(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Stages(tmp_path, total=1).run(drawing(tmp_path, "first"))
    record = json.loads((tmp_path / "stages.json").read_text(encoding="utf-8"))
    record["stages"]["first"]["ended"] = False  # as a killed run leaves it
    (tmp_path / "stages.json").write_text(json.dumps(record), encoding="utf-8")
    (tmp_path / "first" / "kept").touch()
    stages = Stages(tmp_path, total=1)
    stages.run(drawing(tmp_path, "first"))
    assert stages.ran == ["first"] and (tmp_path / "first" / "kept").exists()
    assert stages.done["first"].ended and stages.done["first"].peak.rss > 10**7


def test_a_running_stage_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """The next start goes on in its folder, so nothing may still write there."""
    words = ["demo-data", f"root={tmp_path}/raw", "train_videos=5000", "workers=2"]
    script = f"from glus.launch.stages import _run; _run({words!r})"
    starter = subprocess.Popen([sys.executable, "-P", "-c", script], stdout=subprocess.DEVNULL)
    try:
        # The stage, the two that draw for it, and Python's own process for what they share.
        while len(stage := psutil.Process(starter.pid).children(recursive=True)) < 4:
            time.sleep(0.05)
    finally:
        starter.kill()
        starter.wait()
    gone, left = psutil.wait_procs(stage, 60)
    for each in left:
        each.kill()
    assert len(gone) == 4 and not left


def test_a_stage_that_fails_stops_with_its_code_and_is_run_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stages = Stages(tmp_path, total=1)
    for _ in range(2):
        with pytest.raises(StageFailed) as failed:
            stages.run(drawing(tmp_path, "first", "seed=-1"))
        assert failed.value.code == 2
    assert capfd.readouterr().err.count("glus demo-data: ") == 2
    assert stages.ran == [] and not (tmp_path / "first").exists()


def test_what_others_made_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "mine").touch()
    with pytest.raises(LaunchError, match=r"first is there, but .*stages\.json does not know what made it: move it"):
        Stages(tmp_path, total=1).run(drawing(tmp_path, "first"))
    assert (tmp_path / "first" / "mine").exists()


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    (tmp_path / "stages.json").write_text('{"format": 1, "stages": {"a": 3}}', encoding="utf-8")
    with pytest.raises(LaunchError, match=r"stages\.json: a: Input should be an object; remove .* to begin again"):
        Stages(tmp_path, total=1)


def test_a_comment_in_a_config_file_changes_nothing_and_a_value_does(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "data.yaml"
    ran = []
    for text in ("seed: 1\n", "# the same\nseed: 1\n", "seed: 2\n"):
        file.write_text(text, encoding="utf-8")
        stages = Stages(tmp_path, total=1)
        stages.run(drawing(tmp_path, "first", str(file)))
        ran.append(bool(stages.ran))
    assert ran == [True, False, True]


def test_the_demo_ends_with_the_code_of_the_stage_that_failed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["demo", f"out={tmp_path}", "data_changes=[train_videos=0]"]) == 2
    told = capfd.readouterr()
    assert "[1/12] demo data: glus demo-data " in told.out
    assert "glus demo: stage 'demo data' ended with exit code 2; the same command goes on from there" in told.err
    assert "Traceback" not in told.err and not (tmp_path / "summary.json").exists()


def test_the_set_up_is_counted_from_what_make_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STARTED, raising=False)
    assert set_up_seconds() is None
    monkeypatch.setenv(STARTED, str(int(time.time()) - 3600))
    counted = set_up_seconds()
    assert counted is not None and 0 < counted <= 3601


def test_peak_memory_is_that_of_the_processes_together() -> None:
    with MemoryWatch(interval_s=0.01) as watch:
        before = watch.peak.rss
        held = bytearray(b"x") * (60 * 1024**2)
        time.sleep(0.2)
        assert len(held) > 0
    assert watch.peak.rss - before > 50 * 1024**2


def test_the_davis_demo_takes_the_folder_or_the_one_above(tmp_path: Path) -> None:
    (tmp_path / "DAVIS17" / "meta_expressions").mkdir(parents=True)
    assert root_of(tmp_path) == root_of(tmp_path / "DAVIS17") == tmp_path
    with pytest.raises(LaunchError, match="holds no DAVIS17/meta_expressions: give the folder that DAVIS17 lies in"):
        root_of(tmp_path / "elsewhere")


def test_the_davis_demo_says_what_it_starts_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "DAVIS17" / "meta_expressions").mkdir(parents=True)
    words = ["demo-davis", f"data={tmp_path}", f"out={tmp_path}/out", f"start={tmp_path}/none"]
    assert cli.main(words) == 2
    assert "none holds no trained model: run `make demo-looks` first" in capsys.readouterr().err
