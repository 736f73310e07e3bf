"""`glus submit`: what it writes, what it hands to sbatch, and that no value becomes a command."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from glus.launch import cli
from glus.launch.config.configuration import load_config
from glus.launch.slurm.cluster import cluster_folder
from glus.launch.slurm.sbatch import Batch
from glus.launch.slurm.submit import SubmitConfig, submit
from glus.training.run_config import RunConfig
from tests.slurm.conftest import Cluster
from tests.slurm.world import CONFIGS, TINY_RUN

HOSTILE = [
    "$(touch pwned)",
    "`touch pwned`",
    "'; touch pwned; '",
    '"; touch pwned; "',
    "a\ntouch pwned\n",
    "a\n#SBATCH --wrap=pwned\n",
    "two  blanks and\ta tab",
    "$HOME ${PATH} ~ * ? [a] {b,c} !x",
    "\\",
    "%j %% -n --wrap=x",
    "#no comment",
    'mask the dog\'s "ball" & <tail> | 5 > 3',
    "Zürich 犬 🐕",
    "",
]


def batch(folder: Path, **changes: object) -> Batch:
    whole = Batch("train", "train", "glus train x", folder, 1, {"run.yaml": ""}, {}, {}, ())
    return replace(whole, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_reaches_the_batch_file_verbatim_and_nothing_is_run(value: str, tmp_path: Path) -> None:
    made = batch(tmp_path, settings={"ONE": value, "MANY": (value, "x", value)}, exported={"OUT": value})
    settings, _, _ = made.text().partition("\nset -u\n")
    shown = 'printf \'%s\\0\' "$ONE" "${MANY[@]}"; printenv -0 OUT'
    done = subprocess.run(["bash", "-c", f"{settings}\n{shown}"], cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout.decode().split("\0") == [value, value, "x", value, value, ""]
    assert done.stderr == b"" and not list(tmp_path.iterdir())


RECORDER = """#!{python}
import json, os, sys
with open({place!r}, "a") as file:
    file.write(json.dumps([sys.argv[1:], dict(os.environ)]) + "\\n")
"""


def test_values_reach_a_real_job_verbatim(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = "".join(HOSTILE).replace("\\", "")  # refused in a path, see below
    folder = tmp_path / hostile.replace("/", "")[:200]
    folder.mkdir()
    # It takes the place of the interpreter, and notes how it was called.
    recorder = folder / "$(touch pwned) python"
    recorder.write_text(RECORDER.format(python=sys.executable, place=f"{tmp_path}/calls"), encoding="utf-8")
    recorder.chmod(0o755)
    site = {
        "python": str(recorder),
        "container": ["bash", "-c", 'export WITHIN="$1"; shift; exec "$@"', hostile, hostile],
        "environment": {"NETWORK": hostile},
        "forward": ["PATH", "FORWARDED"],
    }
    (tmp_path / "site.yaml").write_text(json.dumps(site, ensure_ascii=False), encoding="utf-8")
    for name, value in {**cluster.environment, "FORWARDED": hostile, "KEPT_BACK": "x"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)
    run = [f"out={folder}/run", f"name={hostile}"]
    submit(SubmitConfig("train", TINY_RUN, changes=tuple(run), cluster=tmp_path / "site.yaml"))
    job = folder / "run" / "jobs" / "001-train"
    note = json.loads((job / "job.json").read_text(encoding="utf-8"))
    cluster.wait(note["job"], "COMPLETED", 60, job / "log.txt")
    doctor, train, attempts = (json.loads(line) for line in (tmp_path / "calls").read_text("utf-8").splitlines())
    assert doctor[0] == ["-P", "-m", "glus.launch.cli", "doctor", f"{job}/run.yaml"]
    assert train[0] == ["-P", "-m", "glus.launch.cli", "train", f"{job}/run.yaml"]
    assert attempts[0] == ["-P", "-m", "glus.launch.ranks.attempts", f"{job}/run.yaml", "0", "3"]
    for name in ("WITHIN", "NETWORK", "FORWARDED"):
        assert train[1][name] == hostile
    assert train[1]["SLURM_JOB_NAME"] == f"glus train {hostile}" and "KEPT_BACK" not in train[1]
    assert train[1]["PWD"] == str(folder)
    assert load_config(RunConfig, job / "run.yaml", []).name == hostile
    assert note["code"].keys() >= {"code.version"} and note["steps"] == 4
    assert not list(tmp_path.rglob("pwned"))


def test_a_dry_run_shows_the_chain_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prepare.yaml").write_text("datasets: [mevis, revos]\nroot: raw\nout: x\n", encoding="utf-8")
    words = ["submit", "reproduce", str(TINY_RUN), f"changes=[out={tmp_path}/run]", "--nodes", "3", "--dry-run"]
    assert cli.main([*words, "--prepare", str(tmp_path / "prepare.yaml")]) == 0
    shown = capsys.readouterr().out
    commands = [line for line in shown.splitlines() if line.startswith("# sbatch ")]
    assert [line.rpartition("/")[2] for line in commands] == [
        "prepare.sbatch",
        "train.sbatch",
        "evaluate.sbatch",
        "evaluate.sbatch",
        "compare.sbatch",
    ]
    assert ["--array=" in line for line in commands] == [True, False, True, False, False]
    assert "--array=0-1" in commands[0] and "--array=0-2" in commands[2] and "--nodes=3" in commands[1]
    assert ["--dependency=afterok:JOB_BEFORE" in line for line in commands] == [False, True, True, True, True]
    assert "--signal=USR2@180" in commands[1]
    assert [path.name for path in tmp_path.iterdir()] == ["prepare.yaml"]


def test_a_selector_adds_labels_its_training_key_frames_and_their_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["submit", "reproduce", str(TINY_RUN), f"changes=[out={tmp_path}/run]", "--nodes", "3", "--dry-run"]
    words += ["--selector", str(CONFIGS / "glus_s_kfs.yaml"), 'evaluate_changes=["splits=[mevis/valid_u]"]']
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    jobs = re.findall(r"^# (.*)/jobs/\d+-([a-z-]+)/\w+\.sbatch, with", shown, flags=re.MULTILINE)
    run, selector = f"{tmp_path}/run", f"{tmp_path}/run/selector"
    assert jobs == [
        (run, "train"),
        *((run, name) for name in ("predict", "gather", "predict-labels", "gather-labels")),
        (selector, "train-selector"),
        *((run, name) for name in ("score-frames", "select", "predict-kfs", "gather-kfs", "compare")),
    ]
    assert re.findall("^GLUS_COMMAND=(.*)$", shown, flags=re.MULTILINE) == [
        *["evaluate"] * 4, *["select-frames"] * 2, *["evaluate"] * 2
    ]  # fmt: skip
    assert re.findall("^GLUS_PART=(.*)$", shown, flags=re.MULTILINE)[4:6] == ["write=false"] * 2
    assert shown.count("--array=0-2") == 4


@pytest.mark.parametrize("name", ["train", "prepare", "evaluate", "compare"])
def test_a_batch_file_is_bash(name: str, tmp_path: Path) -> None:
    text = batch(tmp_path, template=name).text()
    done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert text.startswith("#!/bin/bash\n") and "#SBATCH --requeue\n" in text and "#SBATCH --open-mode=append\n" in text


@pytest.mark.parametrize("file", sorted(cluster_folder().glob("*.yaml")), ids=lambda file: file.name)
def test_every_site_of_the_repository_can_be_read(file: Path, tmp_path: Path) -> None:
    submit(SubmitConfig("train", TINY_RUN, changes=(f"out={tmp_path}/run",), cluster=file, dry_run=True))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sumbit"], "what"),
        (["train", "none.yaml"], "none.yaml: no such config file"),
        (["train", str(TINY_RUN), "nodes=0"], "nodes=0: it must be at least 1"),
        (["train", str(TINY_RUN), "changes=[stepz=3]"], "no key 'stepz' in RunConfig; did you mean steps"),
        (["train", str(TINY_RUN), "after=[1;touch x]"], "give numbers of jobs"),
        (["train", str(TINY_RUN), "--cluster", "none.yaml"], "none.yaml: no such config file"),
        (
            ["train", str(TINY_RUN), "changes=[out=a\\\\b]", "--dry-run"],
            "SLURM takes a backslash in the path of a log",
        ),
        (["train", str(TINY_RUN), "--cluster", "{site}"], "environment: 'A;touch x' is no name of a variable"),
    ],
)
def test_what_cannot_be_submitted_is_told(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / "site.yaml"
    site.write_text('environment: {"A;touch x": "1"}\n', encoding="utf-8")
    assert cli.main(["submit", *(word.replace("{site}", str(site)) for word in words)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("option", ["output", "-x", "wrap", "mem;x"])
def test_options_that_are_not_a_sites_are_refused(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / "site.yaml"
    site.write_text(json.dumps({"options": {option: "1"}}), encoding="utf-8")
    assert cli.main(["submit", "train", str(TINY_RUN), "--cluster", str(site), "--dry-run"]) == 2
    assert "is no option of sbatch to be set here" in capsys.readouterr().err


def test_without_slurm_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    assert cli.main(["submit", "train", str(TINY_RUN), f"changes=[out={tmp_path}/run]"]) == 2
    assert "no sbatch here: submit from a machine of the cluster, or look with --dry-run" in capsys.readouterr().err
    assert cli.main(["jobs", str(tmp_path / "none")]) == 2
    assert "nothing was submitted from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("site", "message"),
    [
        ({"environment": {"HF_HOME": "~/cache"}}, "environment.HF_HOME: ~ is not expanded here: write its value"),
        ({"environment": {"HF_HOME": "$SCRATCH/hf"}}, "environment.HF_HOME: $SCRATCH is not expanded here"),
        ({"container": ["apptainer", "exec", "${IMAGES}/glus.sif"]}, "container[2]: ${IMAGES} is not expanded here"),
        ({"options": {"error": "~me/errors"}}, "options.error: ~me is not expanded here"),
        ({"python": "/opt/~/python"}, "python: `~` is the home folder only where a path begins"),
    ],
)
def test_a_path_of_a_site_that_no_shell_expands_is_refused(
    site: dict[str, object], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(json.dumps(site), encoding="utf-8")
    assert cli.main(["submit", "train", str(TINY_RUN), "--cluster", str(file), "--dry-run"]) == 2
    assert message in capsys.readouterr().err
