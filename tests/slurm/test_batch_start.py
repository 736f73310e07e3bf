"""What a batch file does before and around srun: modules, cores, shares of an array, the submitting shell's own job."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from glus.launch.commands.evaluate import EvaluateConfig
from glus.launch.config.configuration import load_config
from glus.launch.slurm import sbatch as batches
from glus.launch.slurm.cluster import ClusterConfig
from glus.launch.slurm.sbatch import Batch
from glus.launch.slurm.submit import SubmitConfig, _evaluate_batches, submit
from tests.slurm.conftest import Cluster
from tests.slurm.world import TINY_RUN

RECORDER = """#!{python}
import json, os, sys
with open({place!r}, "a") as file:
    file.write(json.dumps([sys.argv, dict(os.environ)]) + "\\n")
{then}
"""


def recorder(folder: Path, name: str, then: str = "") -> Path:
    """A program of that name in `folder` that appends its words and environment to FOLDER/calls."""
    program = folder / name
    program.write_text(RECORDER.format(python=sys.executable, place=f"{folder}/calls", then=then), encoding="utf-8")
    program.chmod(0o755)
    return program


def calls(folder: Path) -> list[tuple[list[str], dict[str, str]]]:
    file = folder / "calls"
    return [tuple(json.loads(line)) for line in file.read_text("utf-8").splitlines()] if file.exists() else []


def run(batch: Batch, folder: Path, **environment: str) -> tuple[int, str]:
    """Exit code and messages of the batch file, run by bash with an srun that takes notes."""
    recorder(folder, "srun")
    plain = {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    done = subprocess.run(
        ["bash", "-s"], input=batch.text(), env=plain | environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


def comparing(folder: Path, **settings: str | tuple[str, ...]) -> Batch:
    """The shortest batch file."""
    values: Mapping[str, str | tuple[str, ...]] = {"GLUS_FOLDER": str(folder), "GLUS_PYTHON": sys.executable}
    return Batch("compare", "compare", "x", folder, 1, {"compare.yaml": ""}, {**values, **settings}, {}, ())


def test_modules_are_loaded_in_order(tmp_path: Path) -> None:
    function = f'() {{ echo "$@" >> {tmp_path}/loaded; }}'
    made = comparing(tmp_path, GLUS_MODULES=("cuda/12.8", "a b"))
    assert run(made, tmp_path, **{"BASH_FUNC_module%%": function}) == (0, "")
    assert (tmp_path / "loaded").read_text(encoding="utf-8") == "load cuda/12.8\nload a b\n"
    assert len(calls(tmp_path)) == 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("() { return 1; }", "module load cuda/99 failed (status 1)"),
        ("() { false; }", "module load cuda/99 failed (status 1)"),
        ("() { echo $unset; return 3; }", "module load cuda/99 failed (status 3)"),
        # Version 3 of Environment Modules prints an error and returns 0.
        ("() { export LOADEDMODULES=gcc/12; }", "module load cuda/99 failed (status 0, but it is not among gcc/12)"),
        (None, "modules: cuda/99 asked for, but this machine has no `module`"),
    ],
)
def test_a_module_that_does_not_load_ends_the_job(function: str | None, message: str, tmp_path: Path) -> None:
    environment = {} if function is None else {"BASH_FUNC_module%%": function}
    code, said = run(comparing(tmp_path, GLUS_MODULES=("cuda/99",)), tmp_path, **environment)
    assert code == 1 and message in said
    assert not calls(tmp_path), "nothing runs without what it asks for"


@pytest.mark.parametrize("loaded", ["cuda/99", "gcc/12:cuda/99.1", "gcc/12:cuda/99:x"])
def test_a_module_that_version_3_lists_is_loaded(loaded: str, tmp_path: Path) -> None:
    function = f"() {{ export LOADEDMODULES={loaded}; }}"
    name = "cuda" if "99.1" in loaded else "cuda/99"
    made = comparing(tmp_path, GLUS_MODULES=(name,))
    assert run(made, tmp_path, **{"BASH_FUNC_module%%": function}) == (0, "")


def test_module_is_found_where_no_login_shell_defines_it(tmp_path: Path) -> None:
    (tmp_path / "init").mkdir()
    (tmp_path / "init" / "bash").write_text(f'module() {{ echo "$@" > {tmp_path}/loaded; }}\n', encoding="utf-8")
    assert run(comparing(tmp_path, GLUS_MODULES=("cuda",)), tmp_path, MODULESHOME=str(tmp_path)) == (0, "")
    assert (tmp_path / "loaded").read_text(encoding="utf-8") == "load cuda\n"


def test_a_folder_that_a_machine_does_not_have_ends_the_job(tmp_path: Path) -> None:
    code, said = run(comparing(tmp_path, GLUS_FOLDER=f"{tmp_path}/none"), tmp_path)
    assert code == 1 and "the folder that it was submitted from is not on this machine" in said
    assert not calls(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("template", ["compare", "evaluate", "prepare", "train"])
@pytest.mark.parametrize("asked", ["8", None])
def test_srun_is_given_the_cores_of_the_job(template: str, asked: str | None, tmp_path: Path) -> None:
    recorder(tmp_path, "scontrol", then="print('NodeAddr=127.0.0.1 n1')")
    made = Batch(template, template, "x", tmp_path, 1, {"x.yaml": ""}, comparing(tmp_path).settings, {}, ())
    job = {"SLURM_JOB_NODELIST": "n1", "SLURM_JOB_NUM_NODES": "1", "SLURM_ARRAY_TASK_ID": "0"}
    job |= {"GLUS_ATTEMPTS": "1", "GLUS_SHARES": "1", "SLURM_JOB_ID": "7"}
    job |= {"GLUS_COMMAND": "evaluate", "GLUS_PART": "score=false"}
    if asked:
        job["SLURM_CPUS_PER_TASK"] = asked
    run(made, tmp_path, **job)
    steps = [words for words, _ in calls(tmp_path) if words[0].endswith("srun")]
    assert steps
    for words in steps:
        given = [word for word in words[: words.index(sys.executable)] if word.startswith("--cpus-per-task")]
        assert given == ([f"--cpus-per-task={asked}"] if asked else [])


def test_one_task_of_an_array_that_runs_again_keeps_its_share(tmp_path: Path) -> None:
    asked = load_config(EvaluateConfig, None, ["checkpoint=a", "shards=b", f"out={tmp_path}"])
    predict, gather = _evaluate_batches(SubmitConfig("evaluate", TINY_RUN, nodes=4), ClusterConfig(), asked)
    assert predict.array == 4 and gather.array == 0
    # `sbatch --array=2 evaluate.sbatch`: an array of one task.
    assert run(predict, tmp_path, SLURM_ARRAY_TASK_ID="2", SLURM_ARRAY_TASK_COUNT="1") == (0, "")
    [(words, environment)] = calls(tmp_path)
    assert (environment["RANK"], environment["WORLD_SIZE"], words[-1]) == ("2", "4", "score=false")


OF_JOBS = {
    "SLURM_JOB_ID": "1",
    "SLURM_CPU_BIND": "quiet,mask_cpu:0x1",
    "SLURM_MEM_PER_CPU": "7",
    "SLURM_TRES_PER_TASK": "cpu=1",
    "SLURM_NTASKS": "9",
    "SBATCH_EXPORT": "NONE",
    "SBATCH_ARRAY_INX": "0-99",
    "SRUN_CPUS_PER_TASK": "1",
    "PMI_RANK": "0",
    "PMIX_NAMESPACE": "x",
}


def test_a_job_submitted_from_within_a_job_takes_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder(tmp_path, "sbatch", then="print(12)")
    kept = {"SLURM_CONF": "/etc/slurm.conf", "SBATCH_ACCOUNT": "me", "HOME": str(tmp_path), "HF_TOKEN": "x"}
    for name, value in {**OF_JOBS, **kept, "PATH": f"{tmp_path}:{os.environ['PATH']}"}.items():
        monkeypatch.setenv(name, value)
    assert comparing(tmp_path).submit(0.0) == "12"
    [(_, environment)] = calls(tmp_path)
    assert not OF_JOBS.keys() & environment.keys()
    assert kept.items() <= environment.items()


def test_a_real_job_submitted_from_within_a_job_starts_clean(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = recorder(tmp_path, "python-of-the-site")
    (tmp_path / "site.yaml").write_text(json.dumps({"python": str(program), "cpus_per_task": 1}), encoding="utf-8")
    for name, value in {**cluster.environment, **OF_JOBS}.items():
        monkeypatch.setenv(name, value)
    submit(SubmitConfig("train", TINY_RUN, changes=(f"out={tmp_path}/run",), cluster=tmp_path / "site.yaml"))
    job = tmp_path / "run" / "jobs" / "001-train"
    number = json.loads((job / batches.JOB).read_text(encoding="utf-8"))["job"]
    cluster.wait(number, "COMPLETED", 60, job / "log.txt")
    train = next(environment for words, environment in calls(tmp_path) if "train" in words)
    assert train["SLURM_JOB_ID"] == number and train["SLURM_NTASKS"] == "1" and train["SLURM_CPUS_PER_TASK"] == "1"
    assert "SLURM_MEM_PER_CPU" not in train and "SLURM_TRES_PER_TASK" not in train
    assert "mask_cpu:0x1" not in train.get("SLURM_CPU_BIND", "")
