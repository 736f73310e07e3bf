"""Cores that a process may use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from glus.common.cores import cgroup_cores, usable_cores


def test_a_process_that_is_bound_to_one_core_has_one():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from glus.common.cores import *"
    code += "; print(usable_cores())"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/job/step\n", {"job/step/cpu.max": "max 100000", "job/cpu.max": "200000 100000"}, 2.0),
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("0::/gone\n", {}, None),
        ("5:cpu,cpuacct:/job\n1:name=systemd:/x\n", {"cpu/job/cpu.cfs_quota_us": "300000"}, 3.0),
        ("5:cpu,cpuacct:/job\n", {"cpu/job/cpu.cfs_quota_us": "-1"}, None),
        ("", {}, None),
    ],
)
def test_the_quota_of_a_container_counts(tmp_path: Path, groups, files, cores):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, content in files.items():
        place = tmp_path / "sys/fs/cgroup" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
        if name.endswith("quota_us"):
            place.with_name("cpu.cfs_period_us").write_text("100000\n")
    assert cgroup_cores(tmp_path) == cores
