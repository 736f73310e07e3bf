"""How many cores this process may use: its affinity (SLURM's binding, taskset) and its cgroup's limit (containers)."""

import math
import os
from pathlib import Path


def usable_cores() -> int:
    """Cores that this process may use, at least 1. `os.cpu_count()` counts those of the machine."""
    allowed = len(os.sched_getaffinity(0))
    limit = cgroup_cores()
    return max(1, allowed if limit is None else min(allowed, math.ceil(limit)))


def cgroup_cores(root: Path = Path("/")) -> float | None:
    """Cores by the CPU quota of this process's cgroup and those above it, None where there is none.

    `root` is the folder that holds /proc and /sys. Reads cgroup v2's cpu.max and v1's cpu.cfs_quota_us.
    """
    groups = _text(root / "proc/self/cgroup").splitlines()
    limits = []
    for line in groups:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / (controllers and "cpu")
        for group in _upwards(path):
            limits.append(_limit(top / group))
    found = [limit for limit in limits if limit is not None]
    return min(found) if found else None


def _upwards(path: str) -> list[str]:
    """a/b, a and "": inside a container only the last may be there."""
    parts = [part for part in path.split("/") if part and part != ".."]
    return ["/".join(parts[:length]) for length in range(len(parts), -1, -1)]


def _limit(group: Path) -> float | None:
    quota, period, *_ = [*_text(group / "cpu.max").split(), "", ""]
    if not quota:
        quota, period = _text(group / "cpu.cfs_quota_us").strip(), _text(group / "cpu.cfs_period_us").strip()
    if quota.isdecimal() and period.isdecimal() and int(period):
        return int(quota) / int(period)
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
