"""`glus page --weights DIR`: a page in the browser that segments videos, by gradio (`pip install .[page]`)."""

import ipaddress
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Literal

from glus.common.errors import LaunchError
from glus.common.terminal import plain
from glus.model.released.hub import hub_id


@dataclass(frozen=True)
class PageConfig:
    """Which model the page asks, where it is served, and what a visitor may ask for."""

    weights: Path
    """A run folder (its latest checkpoint), one checkpoint folder, or a GLUS or VideoLISA in the released layout: its
    folder, or its id on the Hugging Face hub (org/name, org/name@revision)."""
    videos: Path | None = None
    """A folder of video files and folders of frames that visitors may choose from."""
    host: str = "127.0.0.1"
    """The address to listen on. The default is reached from this machine alone; another one has no password."""
    port: int = 7860
    """The port to listen on."""
    most_expressions: int = 20
    """Expressions that one request may have."""
    upload_mb: int = 500
    """Size of an uploaded video, in megabytes."""
    vision: Path | None = None
    """Folder or hub id of the CLIP vision tower, where a release comes without. For weights of the hub it is found."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """What is computed on; auto refuses the CPU where there should be GPUs and torch sees none (docs/gpu.md)."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto: bf16 on GPUs, fp32 on the CPU."""


def page(config: PageConfig) -> None:
    """Serve the page until Ctrl-C or SIGTERM; uploads and results are removed then.

    Raises LaunchError where gradio is missing or the port is in use, and what GlusPredictor raises.
    """
    refuse_early(config)
    # Here, not above: torch is slow to import.
    from glus.evaluation.segment.predictor import GlusPredictor
    from glus.training.devices import choose_device

    device = choose_device(config.device, "device")
    precision = None if config.precision == "auto" else config.precision
    predictor = GlusPredictor.from_pretrained(config.weights, None, device, precision, config.vision)
    with _ended_by_signal() as ended, tempfile.TemporaryDirectory(prefix="glus-page-") as name:
        scratch = Path(name).resolve()
        os.environ["GRADIO_TEMP_DIR"] = str(scratch)  # for all files of gradio, which makes some when it is imported
        from glus.evaluation.segment.web_page import PageLimits, SegmentPage, served

        limits = PageLimits(config.most_expressions, config.upload_mb)
        served_page = SegmentPage(predictor, limits, scratch, config.videos)
        try:
            with served(served_page, config.host, config.port) as address:
                print(f"page: {address} (Ctrl-C ends it)", flush=True)
                ended.wait()
        except OSError as error:
            if "empty port" not in str(error):  # gradio's message
                raise
            raise _port_in_use(config) from error
    print("page: ended; uploads and results are removed")


def refuse_early(config: PageConfig) -> None:
    """Refuse what needs no model, before one is loaded."""
    if find_spec("gradio") is None:
        raise LaunchError(
            "gradio is not installed, and the page is made with it: run `make env-page` in a clone, or "
            "install glus with its extra `page`, such as pip install '.[page]'"
        )
    for key, least, most in (("port", 1, 65535), ("most_expressions", 1, 1000), ("upload_mb", 1, 100_000)):
        if not least <= getattr(config, key) <= most:
            raise LaunchError(f"{key}={getattr(config, key)}: give a number from {least} to {most}")
    if hub_id(config.weights) is None and not config.weights.is_dir():
        raise LaunchError(
            f"{config.weights}: no such folder of weights; name a run, a checkpoint, a release, or its id on the hub"
        )
    if config.videos is not None and not config.videos.is_dir():
        raise LaunchError(f"videos={config.videos}: no such folder; name one that holds videos, or leave it out")
    _check_port(config)
    if not _is_loopback(config.host):
        print(
            plain(
                f"warning: host={config.host}: whoever reaches port {config.port} of this machine can upload files and "
                "keep its GPU busy; the page has no password (docs/security.md)"
            ),
            file=sys.stderr,
        )


def _check_port(config: PageConfig) -> None:
    """Raise LaunchError where nobody can listen at the address."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except socket.gaierror as error:
        raise LaunchError(
            f"host={config.host}: no such address ({error.strerror}); leave it out for this machine alone"
        ) from error
    except PermissionError as error:
        raise LaunchError(f"port={config.port}: not allowed ({error.strerror}); choose one above 1023") from error
    except OSError as error:
        raise _port_in_use(config, error.strerror or "") from error


def _port_in_use(config: PageConfig, reason: str = "Address already in use") -> LaunchError:
    return LaunchError(
        f"{config.host}, port {config.port}: cannot listen ({reason}); choose another, such as --port {config.port + 1}"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def _ended_by_signal() -> Iterator[Event]:
    """An event that Ctrl-C and SIGTERM set, so that the page ends in order."""
    ended = Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
