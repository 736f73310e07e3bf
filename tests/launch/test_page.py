"""`glus page`: a visitor's way through it in a real browser, its messages, and what it asks of other machines."""

import io
import os
import re
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from glus.common.errors import LaunchError
from glus.launch import cli
from glus.launch.commands.page import PageConfig, refuse_early
from glus.predictor import GlusPredictor
from tests.browsing import opened_page
from tests.model.releases import write_clip, write_glus
from tests.running import listening, unused_ports
from tests.videos import write_video

needs_gradio = pytest.mark.skipif(
    find_spec("gradio") is None, reason="gradio is not installed: make env-page (.ci/run does)"
)

README = Path(__file__).parents[2] / "README.md"
TEXTS = ["the red circle", "a <b>dog</b> & *ball*"]
FRAMES = 3
#: Milliseconds for what takes a second on a machine that does nothing else.
PATIENCE = 600_000
#: `glus`, which notes in a file every host that it connects to or looks up.
NOTING = """
import sys
log = open(sys.argv.pop(1), "w", buffering=1)

def note(event, args):
    if event == "socket.connect" and isinstance(args[1], tuple):
        print(args[1][0], file=log)
    elif event == "socket.getaddrinfo":
        print(args[0], file=log)

sys.addaudithook(note)
from glus.launch.cli import main
sys.exit(main())
"""
ARCHIVE = "a[href$='masks.zip']"
LOOPBACK = {"127.0.0.1", "localhost"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with DIR, a random GLUS as released; clip.mp4; text.mp4, which is no video; videos/ to choose from."""
    root = tmp_path_factory.mktemp("page")
    write_clip(write_glus(root / "DIR") / "clip_vision_tower")
    random = np.random.Generator(np.random.Philox(7))
    (root / "videos" / "frames").mkdir(parents=True)
    write_video(root / "clip.mp4", list(random.integers(0, 256, (FRAMES, 48, 64, 3), np.uint8)), "mp4v")
    for index in range(2):
        Image.fromarray(random.integers(0, 256, (48, 64, 3), np.uint8)).save(root / f"videos/frames/{index}.png")
    (root / "text.mp4").write_text("no video\n" * 100)
    (root / "tmp").mkdir()
    return root


@pytest.fixture(scope="module")
def predictor(world: Path) -> GlusPredictor:
    return GlusPredictor.from_pretrained(world / "DIR", device="cpu")


@dataclass(frozen=True)
class Served:
    """A page that is served: its address, its process, and the file of hosts that it asked for."""

    address: str
    process: subprocess.Popen[str]
    hosts: Path


@pytest.fixture(scope="module")
def served(world: Path) -> Iterator[Served]:
    """README's command. It ends well by SIGTERM and leaves nothing in the temporary folder."""
    [words] = re.findall(r"`(glus page [^`]+)`", README.read_text(encoding="utf-8"))
    assert words == "glus page --weights DIR"
    [port] = unused_ports(1)
    command = [sys.executable, "-c", NOTING, str(world / "hosts"), *words.split()[1:], "--videos", "videos"]
    environment = os.environ | {"TMPDIR": str(world / "tmp"), "GRADIO_ANALYTICS_ENABLED": "True"}
    with subprocess.Popen(
        [*command, "--port", str(port)], cwd=world, env=environment, text=True, stdout=subprocess.PIPE, bufsize=1
    ) as process:
        assert process.stdout is not None
        lines = list(iter(process.stdout.readline, f"page: http://127.0.0.1:{port}/ (Ctrl-C ends it)\n"))
        assert lines == [] and process.poll() is None
        yield Served(f"http://127.0.0.1:{port}/", process, world / "hosts")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 0
        assert process.stdout.read() == "page: ended; uploads and results are removed\n"
    assert list((world / "tmp").iterdir()) == []


@pytest.fixture
def page(served: Served, browser: Browser, complaints: list[str]) -> Iterator[Page]:
    """The page, 1400 pixels wide. The browser asked nobody else for anything."""
    opened, asked = opened_page(browser, complaints, width=1400), []
    opened.on("request", lambda request: asked.append(request.url))
    opened.set_default_timeout(PATIENCE)
    opened.goto(served.address)
    yield opened
    opened.close()
    assert len(asked) > 10 and {url for url in asked if not url.startswith((served.address, "data:", "blob:"))} == set()


def upload(page: Page, file: Path) -> None:
    """Give the page a file, where there is none."""
    page.locator("input[type=file]").first.set_input_files(file)
    page.locator(f"a[href$='{file.name}']").wait_for()


def remove_upload(page: Page) -> None:
    page.get_by_label("Clear").first.click()
    page.locator("input[type=file]").first.wait_for(state="attached")


def ask(page: Page, *texts: str) -> None:
    page.get_by_label("Expressions").fill("\n".join(texts))
    page.get_by_role("button", name="Segment").click()


def shown_message(page: Page) -> str:
    """The message that the page shows, which is then closed."""
    toast = page.locator(".toast-body")
    toast.wait_for()
    text = toast.inner_text()
    page.get_by_test_id("toast-close").click()
    toast.wait_for(state="detached")
    return text


def errors(complaints: list[str]) -> list[str]:
    """What is wrong, among what the browser says. gradio's client warns of a method of its own and closes its queue."""
    usual = ("warning: Method not implemented.", "/gradio_api/queue/data?")
    return [each for each in complaints if not any(words in each for words in usual)]


@needs_gradio
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_visitor_uploads_a_video_and_takes_away_the_masks_of_two_expressions(
    served: Served, page: Page, complaints: list[str], world: Path, predictor: GlusPredictor
) -> None:
    upload(page, world / "clip.mp4")
    ask(page, *TEXTS)
    with page.expect_download() as download:
        page.locator(ARCHIVE).click()
    due = predictor.segment(world / "clip.mp4", TEXTS)
    with zipfile.ZipFile(download.value.path()) as archive:
        found = [
            [
                np.asarray(Image.open(io.BytesIO(archive.read(f"masks/clip/{number}/{name}.png")))) > 0
                for name in due.names
            ]
            for number in range(2)
        ]
        assert len(archive.namelist()) == 2 * FRAMES + 1 and "meta_expressions.json" in archive.namelist()
    np.testing.assert_array_equal(np.array(found), due.masks)
    assert due.masks.any()
    shown = " ".join(page.locator("body").inner_text().split())
    for number, text in enumerate(TEXTS):
        full, silent = due.masks[number].any(axis=(1, 2)).sum(), (~due.answered[number]).sum()
        assert f"{number} {text} 0 {full} {FRAMES - full} {silent}" in shown
    overlay = page.locator("video")
    expect(overlay).to_have_js_property("videoWidth", 320, timeout=PATIENCE)
    page.wait_for_function("[...document.images].some(image => image.complete && image.naturalWidth > 900)")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert errors(complaints) == []
    assert set(served.hosts.read_text().split()) <= LOOPBACK
    assert {host for host, _ in listening(served.process.pid)} == {"127.0.0.1"}


@needs_gradio
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_what_a_visitor_can_fix_is_a_message_and_the_page_goes_on(
    page: Page, complaints: list[str], world: Path
) -> None:
    ask(page, "the ball")
    assert "no video: upload one or choose one of the list" in shown_message(page)
    upload(page, world / "text.mp4")
    ask(page, "the ball")
    message = shown_message(page)
    assert "text.mp4: " in message and "video" in message and str(world) not in message
    ask(page, *(f"thing {number}" for number in range(200)))
    assert "200 expressions, but this page takes 20 at once" in shown_message(page)
    ask(page, " ")
    assert "no expression: say in words what is to be segmented" in shown_message(page)
    remove_upload(page)
    page.get_by_label("Or a video of the server").click()
    page.get_by_role("option", name="frames").click()
    page.get_by_role("spinbutton").fill("9")
    ask(page, "the ball")
    assert "key_frame=9: video frames has 2 frames, 0 to 1" in shown_message(page)
    page.get_by_role("spinbutton").fill("1")
    ask(page, "the ball")
    page.locator(ARCHIVE).wait_for()
    assert errors(complaints) == []


@needs_gradio
@pytest.mark.slow
def test_a_visitor_who_stops_leaves_nothing(
    predictor: GlusPredictor, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    import gradio

    from glus.evaluation.segment.web_page import PageLimits, SegmentPage

    page, seen = SegmentPage(predictor, PageLimits(20, 500), tmp_path / "results"), []
    visitor, other = gradio.Request(session_hash="a"), gradio.Request(session_hash="b")

    def progress(done: tuple[int, int], **options: Any) -> None:
        seen.append(done[0])
        page.stop(other)
        if done[0] == 2:
            page.leave(visitor)

    with pytest.raises(gradio.Error, match="stopped: nothing of this video is kept"):
        page.segment(str(world / "clip.mp4"), None, "the ball", 0, visitor, progress)
    assert seen == [0, 0, 1, 2]
    assert list((tmp_path / "results").iterdir()) == []


CASES = {
    "weights=nowhere": "nowhere: no such folder of weights",
    "port=0": "port=0: give a number from 1 to 65535",
    "most_expressions=0": "most_expressions=0: give a number from 1",
    "upload_mb=0": "upload_mb=0: give a number from 1",
    "videos=nowhere": "videos=nowhere: no such folder",
    "host=no.such.host.invalid": "host=no.such.host.invalid: no such address",
}


@needs_gradio
@pytest.mark.parametrize("word", CASES)
def test_a_setting_that_cannot_work_is_refused_before_a_model_is_loaded(
    word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["page", "--weights", str(tmp_path), word]) == 2
    assert CASES[word] in capsys.readouterr().err


@needs_gradio
def test_a_port_in_use_is_refused_with_another_to_try(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert cli.main(["page", "--weights", str(tmp_path), "--port", str(port)]) == 2
    assert f"127.0.0.1, port {port}: cannot listen (Address already in use); choose another" in capsys.readouterr().err


@needs_gradio
def test_another_host_than_loopback_is_warned_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [port] = unused_ports(1)
    refuse_early(PageConfig(tmp_path, port=port))
    assert capsys.readouterr().err == ""
    refuse_early(PageConfig(tmp_path, host="0.0.0.0", port=port))
    assert "warning: host=0.0.0.0: whoever reaches port" in capsys.readouterr().err


def test_a_missing_gradio_is_named_with_the_way_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(LaunchError, match=r"gradio is not installed.*make env-page.*pip install '\.\[page\]'"):
        refuse_early(PageConfig(tmp_path))
