"""A real SLURM for the tests: munged, slurmctld and two slurmd of this machine, in a folder that goes away."""

import getpass
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.running import unused_ports

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
#: Debian puts the daemons where an ordinary user's PATH does not look.
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])

CONFIG = """
ClusterName=glus
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MpiDefault=none
ReturnToService=2
KillWait=5
MinJobAge=3600
SlurmdTimeout=30
AccountingStorageType=accounting_storage/none
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={first} CPUs=1 RealMemory=2000 State=UNKNOWN
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={second} CPUs=1 RealMemory=2000 State=UNKNOWN
PartitionName=low Nodes=n1,n2 Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=600 MaxTime=INFINITE State=UP
PartitionName=high Nodes=n1,n2 PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Cluster:
    """A running SLURM: `environment` is what its commands need."""

    folder: Path
    environment: dict[str, str]

    def run(self, *words: str) -> str:
        """What a command of SLURM prints."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def state(self, job: str) -> str:
        """PENDING, RUNNING, COMPLETED ...; of a job array the states of all tasks."""
        return " ".join(sorted(set(self.run("squeue", "-h", "-t", "all", "-j", job, "-r", "-o", "%T").split())))

    def wait(self, job: str, wanted: str, seconds: float, log: Path | None = None) -> None:
        """Wait until the job is in this state; cancel it and fail where it ends in another or is late."""
        try:
            self.until(lambda: self._reached(job, wanted, log), f"job {job} {wanted}", seconds, log)
        except AssertionError:
            # A job that hangs would take the cores of the tests that follow.
            subprocess.run(["scancel", "--signal=KILL", "--full", job], env=self.environment, check=False, timeout=60)
            subprocess.run(["scancel", job], env=self.environment, check=False, timeout=60)
            raise

    def _reached(self, job: str, wanted: str, log: Path | None) -> bool:
        state = self.state(job)
        ended = {"FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "COMPLETED"} & set(state.split())
        assert not ended or wanted in ended, f"job {job} is {state}\n{_tail(log)}"
        return state == wanted

    def until(self, reached: Callable[[], bool], what: str, seconds: float, log: Path | None = None) -> None:
        """Wait until something holds; fail with the queue and the end of the log after `seconds`."""
        ends = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < ends, (
                f"{what}: not within {seconds:.0f} s\n{self.run('squeue', '-l')}\n{_tail(log)}"
            )
            time.sleep(0.2)


def _tail(log: Path | None) -> str:
    """The end of a log, or of all logs in a job's folder."""
    files = [] if log is None else sorted(log.glob("log*.txt")) if log.is_dir() else [log]
    ends = [file.read_text(encoding="utf-8", errors="replace")[-4000:] for file in files if file.is_file()]
    return "\n".join(ends)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes, n1 and n2, both this machine; jobs of partition `high` preempt those of `low`."""
    lacking = [name for name in PROGRAMS if shutil.which(name, path=SEARCH) is None]
    if lacking:
        pytest.skip(f"no SLURM here ({', '.join(lacking)} lacking): apt install slurm-wlm munge")
    folder = tmp_path_factory.mktemp("slurm")
    with ExitStack() as running:
        yield start_cluster(folder, running)


def start_cluster(folder: Path, running: ExitStack) -> Cluster:
    """Two nodes, n1 and n2, whose files lie in `folder`; ends with `running`."""
    for name in ("munge", "state"):
        (folder / name).mkdir(mode=0o700)
    (folder / "munge" / "key").write_bytes(os.urandom(1024))
    (folder / "munge" / "key").chmod(0o400)
    ports = dict(zip(("port", "first", "second"), unused_ports(3), strict=True))
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(folder=folder, user=getpass.getuser(), **ports), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
    environment |= {"SLURM_CONF": str(config), "PATH": SEARCH}
    # A job's processes must not be told to leave out compiled files: each would compile its libraries anew.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    found = Cluster(folder, environment)
    munge = [f"--{name}-file={folder}/munge/{name}" for name in ("key", "log", "pid", "seed")]
    _daemon(found, running, "munged", "--foreground", "--force", f"--socket={folder}/munge/socket", *munge)
    found.until((folder / "munge" / "socket").exists, "munge", 10)
    _daemon(found, running, "slurmctld", "-D", "-i")
    for node in ("n1", "n2"):
        _daemon(found, running, "slurmd", "-D", "-N", node)
    found.until(lambda: _answers(found), "both nodes idle", 20, folder / "slurmctld.log")
    running.callback(_end_jobs, found)
    return found


def _answers(cluster: Cluster) -> bool:
    done = subprocess.run(
        ["sinfo", "-h", "-p", "low", "-t", "idle", "-o", "%D"],
        env=cluster.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout.strip() == "2"


def _daemon(cluster: Cluster, running: ExitStack, name: str, *words: str) -> None:
    program = shutil.which(name, path=SEARCH)
    assert program
    with open(cluster.folder / f"{name}-{words[-1][-2:]}.out", "wb") as log:
        process = subprocess.Popen([program, *words], env=cluster.environment, stdout=log, stderr=log)

    def end() -> None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(60)

    running.callback(end)


def _end_jobs(cluster: Cluster) -> None:
    cluster.run("scancel", "--user", getpass.getuser(), "--signal=KILL", "--full")
    cluster.run("scancel", "--user", getpass.getuser())
    cluster.until(lambda: not cluster.run("squeue", "-h").strip(), "the end of all jobs", 30)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start SLURM."""
    for item in items:
        if isinstance(item, pytest.Function) and "cluster" in item.fixturenames:
            item.add_marker(pytest.mark.slurm)
