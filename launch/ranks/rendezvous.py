"""Where the ranks of one machine, or the launchers of a job, find each other. docs/security.md says who may reach it.

One machine: a file in the launcher's private folder, so that nothing listens. Several machines: a TCPStore of the first
one, on the job's address alone. Neither unpickles what it holds, as the rendezvous "c10d" of torch elastic does.
"""

import errno
import os
import socket
import sys
from datetime import timedelta

# torch exports them, but not explicitly.
from torch.distributed import HashStore, PrefixStore, Store, TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)

from glus.common.errors import LaunchError
from glus.launch.ranks.nodes import Nodes
from glus.training.distributed import STORE

BACKEND = "glus"
#: As many launchers may wait to be accepted.
BACKLOG = 1024


def job_store(nodes: Nodes, wait: float) -> TCPStore:
    """The store of a job: the first machine listens on its address of the endpoint, the others connect.

    Raises LaunchError where the port is taken, and torch's DistStoreError where a machine does not come in `wait` s.
    """
    host, _, port = nodes.endpoint.rpartition(":")
    timeout = timedelta(seconds=wait)
    if nodes.number:
        return TCPStore(host, int(port), nodes.count, False, timeout)
    listener = _listen(host, int(port))
    return TCPStore(host, int(port), nodes.count, True, timeout, master_listen_fd=listener.detach())


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens on the host's address; on all addresses, with a warning, where it is not this machine's."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        try:
            return _bound(family, address)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
        print(f"warning: {host} is no address of this machine: port {port} listens on all of them", file=sys.stderr)
        return _bound(socket.AF_INET, ("", port))
    except OSError as error:
        raise LaunchError(f"{host}:{port} cannot be listened on ({error.strerror}): submit the job again") from error


def _bound(family: int, address: object) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)  # type: ignore[arg-type]
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


class Rendezvous(RendezvousHandler):
    """The fixed places of a job's machines: no machine joins or leaves while it runs."""

    def __init__(self, nodes: Nodes, file: str, wait: float) -> None:
        self._nodes = nodes
        self._file = file
        self._wait = wait
        self._store: Store | None = None

    def get_backend(self) -> str:
        """The name in torch's registry."""
        return BACKEND

    @property
    def use_agent_store(self) -> bool:
        """Whether ranks connect to the launcher's store; on one machine they meet in a file."""
        return self._nodes.count > 1

    def next_rendezvous(self) -> RendezvousInfo:
        """Meet the other launchers. The ranks inherit the environment of this process, STORE with it."""
        if self._nodes.count == 1:
            os.environ[STORE] = self._file
            return RendezvousInfo(HashStore(), 0, 1, RendezvousStoreInfo("127.0.0.1", 0))
        if self._store is None:
            self._store = job_store(self._nodes, self._wait)
        host, _, port = self._nodes.endpoint.rpartition(":")
        store = PrefixStore(self._nodes.name, self._store)
        return RendezvousInfo(store, self._nodes.number, self._nodes.count, RendezvousStoreInfo(host, int(port)))

    def is_closed(self) -> bool:
        """Never: a launch has one rendezvous."""
        return False

    def set_closed(self) -> None:
        """Do nothing, as is_closed."""

    def num_nodes_waiting(self) -> int:
        """None: no machine joins later."""
        return 0

    def get_run_id(self) -> str:
        """The job's name."""
        return self._nodes.name

    def shutdown(self) -> bool:
        """Forget the file."""
        os.environ.pop(STORE, None)
        return True


def _handler(parameters: RendezvousParameters) -> RendezvousHandler:
    return Rendezvous(parameters.config["nodes"], parameters.config["file"], parameters.config["wait"])


def register() -> str:
    """Make the rendezvous known to torch elastic; returns its name. Calling it again changes nothing."""
    rendezvous_handler_registry.register(BACKEND, _handler)
    return BACKEND
