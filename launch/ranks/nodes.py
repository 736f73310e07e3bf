"""The machines of a job: how many, which one this is, where the first one waits for the others.

slurm/train.sbatch sets GLUS_RENDEZVOUS; the rest is SLURM's own.
"""

import os
import socket
from dataclasses import dataclass

from glus.common.errors import LaunchError

RENDEZVOUS = "GLUS_RENDEZVOUS"


@dataclass(frozen=True)
class Nodes:
    """`number` of `count` machines; `endpoint` is HOST:PORT of the first; "" where there is no job."""

    number: int = 0
    count: int = 1
    endpoint: str = ""
    name: str = ""
    host: str = ""

    @property
    def alone(self) -> bool:
        """No job of several machines, or of one, started this process."""
        return not self.endpoint

    @classmethod
    def from_environment(cls) -> "Nodes":
        """Raises LaunchError where the environment names a rendezvous and not which machine this is."""
        endpoint = os.environ.get(RENDEZVOUS, "")
        host = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        if not endpoint:
            return cls(host=host)
        names = ("SLURM_NODEID", "SLURM_STEP_NUM_NODES", "SLURM_JOB_ID")
        values = [os.environ.get(name, "") for name in names]
        place, _, port = endpoint.rpartition(":")
        if not (_is_number(values[0]) and _is_number(values[1]) and int(values[0]) < int(values[1]) and values[2]):
            found = ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
            raise LaunchError(f"{RENDEZVOUS} is set, but not by a job: {found}; start with srun, or unset {RENDEZVOUS}")
        if not place or not (_is_number(port) and 0 < int(port) < 2**16):
            raise LaunchError(f"{RENDEZVOUS}={endpoint}: it must be HOST:PORT of the first machine")
        return cls(int(values[0]), int(values[1]), endpoint, f"glus-{values[2]}", host)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


ALONE = Nodes()
