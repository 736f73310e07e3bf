"""A process that fuzzes a group of targets: python -m tests.fuzz.worker GROUP INPUTS SEED DEMO FOLDER.

Its data (what it allocates) may grow by MEMORY after everything is imported; an input may take SECONDS of processor
time. FOLDER/current holds the input that is tried, FOLDER/failures.json what went wrong.
"""

import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.mutations import mutation_for
from tests.fuzz.targets import Target, data_targets, record_targets

MEMORY = 2**30
SECONDS, WAITED = 5.0, 60.0
GROUPS = {"data": data_targets, "records": record_targets}


class TooLong(BaseException):
    """Processor time or patience is used up."""


class Watch:
    """Tries inputs and collects failures, each place in the code once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.failures: dict[str, dict[str, Any]] = {}
        self.tried = 0

    def check(self, target: Target, file: Path, number: int) -> None:
        """Break a file, run the target, put the file back."""
        content = file.read_bytes()
        broken = mutation_for(file)(content, Random(number))
        (self.folder / "current").write_bytes(f"{target.name}\n{file}\n{number}\n".encode() + broken)
        file.chmod(0o644)
        file.write_bytes(broken)
        self.tried += 1
        try:
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            signal.setitimer(signal.ITIMER_REAL, WAITED)
            try:
                target.run()
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
                signal.setitimer(signal.ITIMER_REAL, 0)
        except (Exception, TooLong) as error:  # noqa: BLE001 (whatever comes is a failure)
            self._failed(target, file, number, error)
        finally:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)

    def _failed(self, target: Target, file: Path, number: int, error: BaseException) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "/tests/fuzz/" not in frame.filename] or frames
        key = f"{type(error).__name__} {ours[-1].filename}:{ours[-1].lineno} {target.name}"
        if key not in self.failures:
            text = "".join(traceback.format_exception(error))
            found = {"target": target.name, "file": str(file), "number": number, "text": text[-4000:]}
            self.failures[key] = found
            (self.folder / "failures.json").write_text(json.dumps(list(self.failures.values()), indent=1))


def limit() -> None:
    """Bound the memory that is allocated from now on, and listen for the timers."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData:")]
    used = int(line.split()[1]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY, resource.RLIM_INFINITY))

    def too_long(number: int, frame: object) -> None:
        raise TooLong(signal.Signals(number).name)

    signal.signal(signal.SIGPROF, too_long)
    signal.signal(signal.SIGALRM, too_long)


def fuzz(targets: Iterator[Target], inputs: int, start: int, watch: Watch, only: str = "") -> None:
    """Give each target its share of the inputs."""
    found = list(targets)
    for target in found:  # What they import counts before, and a good file must pass.
        target.run()
    limit()
    total = sum(target.share for target in found)
    for target in found:
        if only not in target.name:
            continue

        @seed(start)
        @settings(
            max_examples=max(1, round(inputs * target.share / total)),
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.sampled_from(target.files), st.integers(0, 2**64))
        def check(file: Path, number: int) -> None:
            watch.check(target, file, number)  # noqa: B023 (called before the next target comes)

        before = watch.tried
        check()
        print(f"{target.name}: {watch.tried - before} inputs", flush=True)


def main() -> int:
    """Fuzz, and write FOLDER/done with the number of inputs at the end."""
    group, inputs, start, demo, folder, *only = sys.argv[1:]
    place = Path(folder)
    watch = Watch(place)
    work = place / "work"
    work.mkdir(parents=True)
    os.chdir(work)
    fuzz(GROUPS[group](Path(demo), work), int(inputs), int(start), watch, *only)
    (place / "done").write_text(str(watch.tried))
    return 0


if __name__ == "__main__":
    sys.exit(main())
