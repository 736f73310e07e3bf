"""Processes of tests, forked from one that has imported the libraries (tests/preloaded.py) and computed nothing.

A fresh interpreter takes 10 to 15 s of a core for torch, transformers, DeepSpeed and MLflow. Not forks of pytest's own
process: torch's threads, where tests before have started some, are not in a fork, which waits for them for ever.
Tests of how a command starts use fresh interpreters.
"""

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from glus.launch.ranks.ranks import launch_settings

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["tests.preloaded"])


class _Environment:
    """The variables of this process when the other one starts: the server has those of its own start."""

    def __reduce__(self) -> tuple[Callable[..., "_Environment"], tuple[dict[str, str]]]:
        return _set_environment, (dict(os.environ),)


def _set_environment(variables: dict[str, str]) -> _Environment:
    os.environ.clear()
    os.environ.update(variables)
    return _Environment()


def run_elastic(folder: Path, ranks: int, function: Callable[..., object], *args: Any) -> None:
    """Call `function(*args)` in `ranks` processes, as torch elastic starts the ranks of `glus train`.

    `folder` takes what the launcher writes. Raises torch's ChildFailedError where one fails.
    """
    from torch.distributed.launcher.api import elastic_launch

    folder.mkdir()
    settings = replace(launch_settings(folder, ranks), start_method="forkserver")
    elastic_launch(settings, _call)(_Environment(), function, *args)


def run_processes(count: int, function: Callable[..., object], *args: Any) -> None:
    """Call `function(number, *args)` in `count` processes, by torch. Raises what one of them raises."""
    from torch.multiprocessing.spawn import start_processes

    start_processes(_call_number, (_Environment(), function, *args), count, start_method="forkserver")


def _call(_: _Environment, function: Callable[..., object], *args: Any) -> None:
    function(*args)


def _call_number(number: int, _: _Environment, function: Callable[..., object], *args: Any) -> None:
    function(number, *args)
