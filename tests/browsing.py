"""The browser that tests open pages in: an installed Chromium, driven by playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome")
#: As root and in small containers Chromium has neither a sandbox nor much shared memory.
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


def browser_file() -> str | None:
    """The Chromium of this machine, or that of GLUS_CHROMIUM."""
    return os.environ.get("GLUS_CHROMIUM") or next((place for name in NAMES if (place := shutil.which(name))), None)


@contextmanager
def started_browser() -> Iterator[Browser]:
    """A Chromium; the test is skipped where none is installed."""
    place = browser_file()
    if place is None:
        pytest.skip("no Chromium here: apt install chromium, or name one in GLUS_CHROMIUM (.ci/run installs it)")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=place, args=SWITCHES, timeout=90_000)
        yield started
        started.close()


def opened_page(browser: Browser, complaints: list[str], width: int = 1240) -> Page:
    """A new page; `complaints` gets what the browser says on its console or fails to load."""
    opened = browser.new_page(viewport={"width": width, "height": 900})
    opened.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("requestfailed", lambda request: complaints.append(f"not loaded: {request.url}"))
    return opened
