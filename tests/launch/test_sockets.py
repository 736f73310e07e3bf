"""What listens while a training runs, and what a stranger can do to the store in which launchers meet."""

import base64
import contextlib
import ipaddress
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from torch.distributed import TCPStore

from glus.common.errors import LaunchError
from glus.launch.ranks import ranks, rendezvous
from glus.launch.ranks.nodes import Nodes
from glus.launch.ranks.rendezvous import job_store
from glus.training.run_config import RunConfig
from tests.running import listening, unused_ports, written

pytestmark = pytest.mark.slow

TinyRun = Callable[..., RunConfig]


@pytest.mark.ranks
@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [1, 2])
def test_nothing_outside_loopback_listens_while_ranks_train(count: int, tiny_run: TinyRun, tmp_path: Path) -> None:
    config = tiny_run(tmp_path / "run", "steps=1000", "checkpoint_every=1", f"ranks={count}")
    words = [sys.executable, "-m", "glus.launch.cli", "train", str(written(config, tmp_path))]
    # An interface that the site chose for jobs of several machines must not open a port of one that is alone.
    environment = os.environ | {"GLOO_SOCKET_IFNAME": other_interface()}
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment) as run:
        seen: set[tuple[str, int]] = set()
        latest = tmp_path / "run" / "checkpoints" / "latest"
        while run.poll() is None and not latest.is_file():
            seen |= listening(run.pid)
            time.sleep(0.05)
        seen |= listening(run.pid)
        run.terminate()
        assert run.wait() == ranks.STOPPED, run.stderr and run.stderr.read()
    assert len(seen) >= count, "gloo listens on each rank"
    assert {address for address, _ in seen if not ipaddress.ip_address(address).is_loopback} == set()


def other_interface() -> str:
    """One that is not loopback, or else loopback."""
    return next((name for name in psutil.net_if_addrs() if name != "lo"), "lo")


class Payload:
    """A pickle that makes a folder when somebody loads it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.marker),)


#: A launcher of `count` machines whose ranks do nothing for some seconds.
LAUNCHER = """
import sys
from pathlib import Path
from torch.distributed.launcher.api import elastic_launch
from glus.launch.ranks.nodes import Nodes
from glus.launch.ranks.ranks import launch_settings
nodes = Nodes(0, 2, sys.argv[2], "glus-7", "n1") if len(sys.argv) > 2 else Nodes()
elastic_launch(launch_settings(Path(sys.argv[1]), 1, nodes), sys.executable)("-c", "import time; time.sleep(6)")
"""


def attack(port: int, marker: Path, names: list[str]) -> None:
    """What a stranger may do: a pickle under every name that torch elastic uses."""
    payload = pickle.dumps(Payload(marker))
    store = TCPStore("127.0.0.1", port, None, False, timedelta(seconds=5), wait_for_workers=False)
    for name in names:
        for content in (payload, base64.b64encode(payload)):
            store.set(name, content)


def test_a_launcher_of_one_machine_offers_nothing_to_connect_to(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", LAUNCHER, str(tmp_path)]) as launcher:
        found: set[int] = set()
        while launcher.poll() is None:
            for _, port in listening(launcher.pid):
                found.add(port)
                with contextlib.suppress(Exception):
                    attack(port, tmp_path / "pwned", [f"torch.rendezvous.glus-{launcher.pid}"])
            time.sleep(0.1)
    assert launcher.returncode == 0 and not found
    assert not (tmp_path / "pwned").exists()


def test_a_pickle_in_the_store_of_a_job_is_not_run(tmp_path: Path) -> None:
    port = unused_ports(1)[0]
    words = [sys.executable, "-c", LAUNCHER, str(tmp_path), f"127.0.0.1:{port}"]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as launcher:
        while not (reached := {ip for ip, number in listening(launcher.pid) if number == port}):
            assert launcher.poll() is None
            time.sleep(0.05)
        names = [f"glus-7/torchelastic/{part}" for part in ("role_info/1", "assigned_ranks/0", "assigned_ranks/1")]
        attack(port, tmp_path / "pwned", [f"/{name}" for name in names] + names + ["torch.rendezvous.glus-7"])
        # The second machine comes; what the stranger wrote is no JSON.
        second = job_store(Nodes(1, 2, f"127.0.0.1:{port}", "glus-7", "n2"), 20)
        assert launcher.wait(60) != 0
        del second
    assert reached == {"127.0.0.1"}
    assert not (tmp_path / "pwned").exists()


def test_the_store_of_a_job_listens_on_the_address_of_the_job_alone() -> None:
    nodes = Nodes(0, 1, f"127.0.0.1:{unused_ports(1)[0]}", "glus-7", "n1")
    before = listening(os.getpid())
    store = job_store(nodes, 5)
    store.set("key", "value")
    assert store.get("key") == b"value"
    assert {address for address, _ in listening(os.getpid()) - before} == {"127.0.0.1"}


def test_a_port_of_the_job_that_is_taken_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LaunchError, match=rf"127\.0\.0\.1:{port} cannot be listened on \(Address already in use"):
            job_store(Nodes(0, 2, f"127.0.0.1:{port}", "glus-7", "n1"), 5)


def test_an_address_of_another_machine_is_warned_about(capsys: pytest.CaptureFixture[str]) -> None:
    port = unused_ports(1)[0]
    # TEST-NET-1: nobody has it.
    with contextlib.closing(rendezvous._listen("192.0.2.1", port)) as listener:
        assert listener.getsockname() == ("0.0.0.0", port)
    assert f"192.0.2.1 is no address of this machine: port {port} listens on all" in capsys.readouterr().err
