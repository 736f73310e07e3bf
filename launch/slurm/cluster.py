"""Settings of one site: partition, account, modules, container, network (configs/cluster/*.yaml)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from glus.common.errors import InputError, LaunchError
from glus.common.paths import PathText, refuse_unexpanded

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPTION = re.compile(r"[a-z][a-z0-9-]*")
#: Options that `glus submit` sets itself.
_OURS = (
    "array",
    "chdir",
    "dependency",
    "export",
    "job-name",
    "nodes",
    "ntasks-per-node",
    "output",
    "parsable",
    "signal",
    "wrap",
)

#: What SLURM and MPI put into the environment of a job, and variables that stand for options of sbatch, srun, squeue.
_OF_JOBS = ("SLURM", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SCONTROL_", "PMI", "OMPI_", "PRTE_", "HYDRA_")
#: Where SLURM is, who submits, and at whose expense.
_KEPT = (
    *("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_CLUSTERS", "SBATCH_CLUSTERS"),
    *("SBATCH_ACCOUNT", "SBATCH_PARTITION", "SBATCH_QOS", "SBATCH_RESERVATION"),
)


@dataclass(frozen=True)
class ClusterConfig:
    """A site. What is empty or 0 is not asked for."""

    partition: str = ""
    account: str = ""
    time: str = "24:00:00"
    """Time limit of a job; a training goes on in another one by itself."""
    gpus_per_node: int = 0
    cpus_per_task: int = 0
    memory: str = ""
    """Memory of a machine, as SLURM writes it (64G)."""
    options: dict[str, str] = field(default_factory=dict)
    """Further options of sbatch by their long names: {constraint: h100, qos: long}."""
    modules: tuple[str, ...] = ()
    """Environment modules to load."""
    container: tuple[str, ...] = ()
    """Words that begin every command in a container: [apptainer, exec, --nv, glus.sif]."""
    python: PathText = ""
    """The interpreter on the machines of the cluster; empty takes the one that submits."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of every job, such as NCCL_SOCKET_IFNAME."""
    forward: tuple[str, ...] = ("HOME", "PATH", "LANG", "USER")
    """Variables of the shell that submits which a job is given, by name; no others are."""
    warn_seconds: int = 180
    """Seconds before the time limit at which a training is signalled to save."""
    attempts: int = 3
    """How many attempts in a row may end without a new checkpoint."""

    def __post_init__(self) -> None:
        for kind, names in (("environment", self.environment), ("forward", self.forward)):
            for name in names:
                if not _NAME.fullmatch(name):
                    raise LaunchError(f"{kind}: {name!r} is no name of a variable")
        words = {f"container[{place}]": word for place, word in enumerate(self.container)}
        for kind, values in (("environment", self.environment), ("options", self.options)):
            words |= {f"{kind}.{name}": value for name, value in values.items()}
        for key, word in words.items():
            try:
                refuse_unexpanded(word)
            except InputError as error:
                raise LaunchError(f"{key}: {error}") from error
        for name in self.options:
            if not _OPTION.fullmatch(name) or name in _OURS:
                raise LaunchError(f"options: {name!r} is no option of sbatch to be set here; leave it out")
        for name, value in (("warn_seconds", self.warn_seconds), ("attempts", self.attempts)):
            if value < 1:
                raise LaunchError(f"{name}={value}: it must be at least 1")

    def sbatch_options(self) -> list[str]:
        """Options for sbatch's command line, each one word."""
        asked = {
            "partition": self.partition,
            "account": self.account,
            "time": self.time,
            "gpus-per-node": self.gpus_per_node or "",
            "cpus-per-task": self.cpus_per_task or "",
            "mem": self.memory,
        }
        return [f"--{name}={value}" for name, value in (asked | self.options).items() if str(value)]


def outside_of_jobs(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment as a login shell has it, for SLURM's commands inside an interactive job.

    A job that is submitted from there would begin with its SLURM_CPU_BIND, SLURM_MEM_PER_CPU and others.
    """
    return {name: value for name, value in environment.items() if name in _KEPT or not name.startswith(_OF_JOBS)}


def cluster_folder() -> Path:
    """Where the sites of this repository are described."""
    return Path(__file__).parents[2] / "configs" / "cluster"
