"""Programs that tests start: their settings, the ports they are given, the ranks they have."""

import contextlib
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from glus.launch.config.configuration import to_yaml
from glus.training.run_config import RunConfig


def written(config: RunConfig, folder: Path) -> Path:
    """FOLDER/run.yaml with the settings."""
    file = folder / "run.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    return file


def unused_ports(count: int) -> list[int]:
    """Ports of loopback where nobody listens, all different."""
    with ExitStack() as held:
        taken = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in taken:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in taken]


def ranks_of(out: str) -> dict[int, int]:
    """Rank -> process, of the ranks that train into `out` on this machine."""
    found = {}
    for process in psutil.process_iter(["cmdline", "environ"]):
        # None where it is another user's.
        words, settings = process.info["cmdline"] or [], process.info["environ"] or {}
        if "glus.launch.ranks.ranks" in words and out in words and "RANK" in settings:
            found[int(settings["RANK"])] = process.pid
    return found


def listening(process: int) -> set[tuple[str, int]]:
    """(address, port) of every TCP and UDP socket on which the process or one below it accepts from others."""
    found = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        tree = [psutil.Process(process), *psutil.Process(process).children(recursive=True)]
        for each in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                found |= {(one.laddr.ip, one.laddr.port) for one in each.net_connections("inet") if _accepts(one)}
    return found


def _accepts(connection: Any) -> bool:
    if connection.type == socket.SOCK_DGRAM:
        return bool(connection.laddr and not connection.raddr)
    return bool(connection.status == psutil.CONN_LISTEN)
