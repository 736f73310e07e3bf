"""Ray: one that is joined or started, and its workers, which write shards. The only file that imports ray."""

import logging
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from glus.common.cores import usable_cores
from glus.common.errors import DataError, UserError, first_line
from glus.data_pipeline.shards.shard_job import JobReport, ShardJob, ShardMaker

#: Ray's shared memory: only small reports travel through it.
OBJECT_STORE_BYTES = 100 * 1024**2
#: How long a Ray cluster may take to answer at its address.
ANSWER_SECONDS = 10.0
#: How often a shard is tried again on another worker after one died of it, and a worker that does not start.
RETRIES = 3
#: How often Ray is started where it is not there within the 30 s that it gives itself.
STARTS = 3
#: How long to wait for a first worker of a Ray whose CPUs are taken or gone.
NO_WORKER_SECONDS = 600.0
#: Paths of Unix sockets are no longer than this, and what Ray appends to its folder is no longer than that.
LONGEST_SOCKET, RAY_APPENDS = 107, 68
#: Where Ray's folder goes if the one for temporary files has too long a path.
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")

_log = logging.getLogger(__name__)


@contextmanager
def running_ray(address: str | None, cores: int | None) -> Iterator[None]:
    """Join the Ray at `address`, or without one start it here, with `cores` CPUs or all, and end it afterwards.

    Without an address the command of a Ray job joins that job's Ray. One that this process has already stays as it is.
    Raises DataError where there is none at that address, or where none can be started.
    """
    # Ray reads this when it starts: nothing is to be sent anywhere.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = address or _own_job()
    with ExitStack() as held:
        if address is None:
            # Read when ray is imported.
            held.enter_context(_private_environment())
        import ray

        if not ray.is_initialized():
            if address is None:
                _start_ray(cores, held)
            else:
                held.callback(ray.shutdown)
                _join_ray(address)
        yield


def in_ray_job() -> bool:
    """Whether this is the command of a Ray job."""
    return bool(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"))


def _own_job() -> str | None:
    """The Ray of the job whose command this is, None outside of one."""
    if in_ray_job():
        return "auto"
    if os.environ.get("RAY_ADDRESS"):
        print(f"RAY_ADDRESS={os.environ['RAY_ADDRESS']} is not used: ray_address=auto joins it; a Ray is started here")
    return None


@contextmanager
def _private_environment() -> Iterator[None]:
    """Environment for a Ray that only this process and its workers reach.

    Ray listens on all interfaces and runs code for whoever connects. The first variable, meant for laptops, makes it
    listen on loopback; a token keeps the machine's other users out.
    """
    values = {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    before = {name: os.environ.get(name) for name in (*values, "RAY_ADDRESS")}
    os.environ.update(values)
    os.environ.pop("RAY_ADDRESS", None)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _start_ray(cores: int | None, held: ExitStack) -> None:
    import ray

    folder = _short_folder()
    held.callback(shutil.rmtree, folder, ignore_errors=True)
    held.callback(ray.shutdown)
    for start in range(1, STARTS + 1):
        try:
            ray.init(
                address="local",
                num_cpus=cores or usable_cores(),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=OBJECT_STORE_BYTES,
                _temp_dir=str(folder),
            )
            return
        except Exception as error:  # a bare Exception where a busy machine is too slow
            if start == STARTS or "timed out" not in str(error):
                raise DataError(
                    f"Ray cannot be started here: {first_line(error)} Try again when less else runs"
                ) from error
            _log.warning("Ray did not start within its 30 s; trying again")
            ray.shutdown()


def _short_folder() -> Path:
    """A new folder of this user's alone, whose path is short enough for Ray's sockets. Raises DataError."""
    longest = LONGEST_SOCKET - RAY_APPENDS - len("/glus-12345678")
    for place in (tempfile.gettempdir(), *SHORT_FOLDERS):
        if len(os.fsencode(place)) <= longest:
            with suppress(OSError):
                return Path(tempfile.mkdtemp(prefix="glus-", dir=place))
    raise DataError(
        f"Ray's sockets need a folder with a short path, and none of {', '.join(SHORT_FOLDERS)} can be written: set "
        f"TMPDIR to one of at most {longest} characters"
    )


def _join_ray(address: str) -> None:
    import ray

    try:
        _ask_for_an_answer(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, OverflowError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise DataError(
            f"no Ray cluster at {address} ({first_line(error)}): start one (ray start --head), or leave ray_address out"
        ) from error


def _ask_for_an_answer(address: str) -> None:
    """Raises OSError where nobody listens at HOST:PORT, OverflowError where the port is above 65535.

    Ray itself would wait for longer than five minutes.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()


@contextmanager
def started_workers(wanted: int | None, jobs: int, root: Path, seen: Mapping[str, bytes]) -> Iterator["Workers"]:
    """Workers on the Ray of this process: `wanted`, or one a CPU; no more than there are CPUs or `jobs`.

    Each first makes sure that it sees the folder `root` and the files `seen` (path -> content).
    """
    import ray

    cpus = int(ray.cluster_resources().get("CPU", 1))
    # More actors than CPUs would wait for one for ever.
    workers = Workers(max(1, min(wanted or cpus, cpus, jobs)), root, seen)
    try:
        yield workers
    finally:
        workers.kill()


class Workers:
    """ShardMakers as Ray actors. One that dies, alone or with its machine, is replaced where there is a CPU for it."""

    def __init__(self, count: int, root: Path, seen: Mapping[str, bytes]) -> None:
        import ray

        # Ray's own restarts would keep a job waiting for a CPU that a lost machine took with it. By default an actor
        # holds no CPU once it runs, so one machine could get the workers of all.
        self._maker = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(ShardMaker)
        self._root, self._seen = root, seen
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self._busy: dict[Any, tuple[Any, ShardJob]] = {}
        self._failed = 0
        for _ in range(count):
            self._start()

    def _start(self) -> None:
        actor = self._maker.remote()
        self._starting[actor.ready.remote(self._root, self._seen)] = actor

    def reports(self, jobs: Sequence[ShardJob]) -> Iterator[JobReport]:
        """Do jobs, in any order; each worker has one at a time, so memory stays bounded.

        Raises the UserError of a job, and DataError where a job's worker dies too often or no worker starts.
        """
        import ray

        todo, tries = deque(jobs), Counter[int]()
        alone = time.monotonic()
        while todo or self._busy:
            while todo and self._idle:
                actor, job = self._idle.pop(), todo.popleft()
                self._busy[actor.make.remote(job)] = actor, job
            done, _ = ray.wait([*self._busy, *self._starting], num_returns=1, timeout=60)
            if done or self._busy:
                alone = time.monotonic()
            else:
                self._complain(time.monotonic() - alone)
            for reference in done:
                if reference in self._starting:
                    self._started(reference)
                    continue
                actor, job = self._busy.pop(reference)
                try:
                    report = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise _own(error) from None
                except ray.exceptions.RayError as error:
                    tries[job.number] += 1
                    self._lost(actor, job, tries[job.number], error)
                    todo.appendleft(job)
                else:
                    self._idle.append(actor)
                    yield report

    def _started(self, reference: Any) -> None:
        import ray

        actor = self._starting.pop(reference)
        try:
            ray.get(reference)
            self._idle.append(actor)
            self._failed = 0
        except ray.exceptions.RayTaskError as error:
            raise _own(error) from None
        except ray.exceptions.RayError as error:
            self._failed += 1
            if self._failed > RETRIES:
                raise DataError(
                    f"Ray's workers do not start ({first_line(error)}): every machine needs this environment, with "
                    "glus installed, or sent with the Ray job (docs/cluster.md)"
                ) from error
            self._start()

    def _lost(self, actor: Any, job: ShardJob, tries: int, error: Exception) -> None:
        import ray

        if tries > RETRIES:
            raise DataError(
                f"{job.dataset}/{job.split}: a worker died {tries} times, most likely out of memory; use fewer "
                "workers and run again: finished shards are kept"
            ) from error
        _log.warning("%s/%s: a worker died; %s is tried again", job.dataset, job.split, job.name)
        # Where it is only out of reach, it must not go on next to the one that takes its job.
        ray.kill(actor, no_restart=True)
        self._start()

    def _complain(self, seconds: float) -> None:
        if seconds > NO_WORKER_SECONDS:
            raise DataError(
                f"no worker started for {seconds / 60:.0f} minutes: the Ray cluster has no free CPU; wait for its "
                "other jobs, or add machines, then run again: finished shards are kept"
            )
        _log.warning("no worker yet: the Ray cluster has no free CPU; waits")

    def kill(self) -> None:
        """End all workers, whatever they are at."""
        import ray

        for actor in [*self._idle, *self._starting.values(), *(actor for actor, _ in self._busy.values())]:
            ray.kill(actor, no_restart=True)


def _own(error: Any) -> BaseException:
    """What a worker raised, where the user can fix it; else Ray's error, with the worker's traceback."""
    return error.cause if isinstance(error.cause, UserError) else error
