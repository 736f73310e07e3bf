"""The report as a person sees it: opened in a real browser without a server, looked at, and moved by its slider."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from glus.evaluation.pages.comparison import write_comparison
from glus.evaluation.pages.evaluation_page import pick_examples, write_report
from glus.evaluation.pages.inline_report import inlined
from glus.evaluation.pages.overlays import PREDICTION, TRUTH
from glus.evaluation.pages.side_by_side import write_side_by_side
from glus.evaluation.pages.viewer import find_expression
from glus.evaluation.results.scores_file import read_scores, write_scores
from glus.evaluation.results.summary import EVALUATION, named_metrics, summarise
from glus.evaluation.score.scoring import score_split
from tests.browsing import opened_page

pytestmark = pytest.mark.slow


@pytest.fixture
def page(browser: Browser, complaints: list[str]) -> Iterator[Page]:
    opened = opened_page(browser, complaints)
    yield opened
    opened.close()


@pytest.fixture
def scored(mevis, tmp_path, write_perfect):
    write_perfect(mevis, tmp_path / "masks")
    scores = score_split(mevis, tmp_path / "masks", False)
    origin = {"title": "right", "predictions": str(tmp_path / "masks"), "shards": mevis.storage.place}
    write_scores(scores, summarise(scores), tmp_path / "out", origin=origin)
    return scores


def picture(page: Page, selector: str) -> np.ndarray:
    """What an element looks like, float [h, w, 3]."""
    with Image.open(io.BytesIO(page.locator(selector).first.screenshot())) as image:
        return np.asarray(image.convert("RGB"), np.float64)


def near(found: np.ndarray, colour: tuple[int, int, int], ground: np.ndarray) -> float:
    """Share of pixels that went from the plain frame towards a colour."""
    wanted = np.asarray(colour, np.float64)
    return float((np.linalg.norm(found - wanted, axis=2) < np.linalg.norm(ground - wanted, axis=2) - 20).mean())


def test_the_report_opens_shows_its_masks_and_slides(
    mevis, scored, tmp_path, page: Page, complaints: list[str]
) -> None:
    place, *_ = write_report(tmp_path / "out", "Demo", summarise(scored), scored, [mevis], tmp_path / "masks")
    page.goto(place.as_uri(), wait_until="load")
    assert page.title() == "Demo"
    assert page.locator("figure.viewer").count() == 6
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    views = page.locator("figure.viewer").first.locator(".view")
    assert views.count() == 3
    slider, line = page.locator("figure.viewer input").first, page.locator("figure.viewer output").first
    truth, pred = ("figure.viewer .view >> nth=0", "figure.viewer .view >> nth=1")
    video, expression = find_expression(mevis, pick_examples(scored, 2)[0][1])
    share = mevis.read_target(video, expression, range(6)).mean(axis=(1, 2))
    shown = {}
    for frame in (0, 5):
        slider.evaluate("(input, at) => { input.value = at; input.dispatchEvent(new Event('input')); }", str(frame))
        assert line.text_content() == f"frame {mevis.videos[video].frame_names[frame]} · J 100, F 100"
        shown[frame] = picture(page, truth)
        page.add_style_tag(content=".view img + img { visibility: var(--masks, visible); }")
        page.evaluate("document.documentElement.style.setProperty('--masks', 'hidden')")
        ground = picture(page, truth)
        page.evaluate("document.documentElement.style.setProperty('--masks', 'visible')")
        # What is tinted is what the target covers; an object of that very colour shows it less.
        for found, colour in ((shown[frame], TRUTH), (picture(page, pred), PREDICTION)):
            assert 0.3 * share[frame] <= near(found, colour, ground) <= 1.3 * share[frame] + 0.01
    assert share.max() > 0.01
    assert np.abs(shown[0] - shown[5]).mean() > 1.0  # another frame
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert complaints == []


def test_the_report_in_one_file_shows_its_pictures_anywhere(
    mevis, scored, tmp_path, page: Page, complaints: list[str]
) -> None:
    place, *_ = write_report(tmp_path / "out", "Demo", summarise(scored), scored, [mevis], tmp_path / "masks")
    alone = tmp_path / "elsewhere" / "report.html"
    alone.parent.mkdir()
    alone.write_bytes(inlined(place))
    page.goto(alone.as_uri(), wait_until="load")
    page.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.evaluate("document.images.length") == 6 * 3 * 2
    pictures = len(list((tmp_path / "out" / "overlays").glob("*-frames.jpg")))
    assert alone.read_text(encoding="utf-8").count("data:image/jpeg") == pictures == 6
    page.locator("figure.viewer input").first.press("End")
    assert page.locator("figure.viewer output").first.text_content().startswith("frame 00025")
    assert complaints == []


#: Elements whose content is wider than they are, and that cut it off or make the reader scroll sideways.
CUT_OFF = """() => [...document.querySelectorAll("main *")].filter(each => each.clientWidth > 0
  && each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).overflowX !== "visible")
  .map(each => each.innerText.slice(0, 60))"""


@dataclass(frozen=True)
class Run:
    run_id: str
    name: str
    params: dict[str, str]
    metrics: dict[str, float]
    history: dict[str, tuple[tuple[int, float], ...]]


@pytest.mark.parametrize("width", [1400, 800])
def test_no_table_of_report_and_comparison_is_cut_off(
    mevis, scored, tmp_path, page: Page, complaints: list[str], width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    report, *_ = write_report(tmp_path / "out", "Demo", summarise(scored), scored, [mevis], tmp_path / "masks")
    metrics = named_metrics(summarise(scored)) | {"total": 0.5, "system/node-0/cpu_percent": 50.0}
    curve = ((10, 1.0), (20, 0.5))
    runs = [
        Run(
            str(n),
            f"a_run_with_quite_a_long_name_{n}",
            {"init_from": f"build/a/long/folder/{n}"},
            metrics,
            {"a": curve},
        )
        for n in range(4)
    ]
    compared, *_ = write_comparison(runs, tmp_path / "side", scores=[{EVALUATION: read_scores(tmp_path / "out")}] * 4)
    for place in (report, compared):
        page.goto(place.as_uri(), wait_until="load")
        assert page.evaluate(CUT_OFF) == []
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.get_by_text("no difference shown").count() == 2 * 3
    assert page.get_by_text("system/node-0/cpu_percent").is_hidden()
    page.get_by_text("System metrics").click()
    assert page.get_by_text("system/node-0/cpu_percent").is_visible() and page.evaluate(CUT_OFF) == []
    assert complaints == []


def test_two_evaluations_open_side_by_side(mevis, scored, tmp_path, page: Page, complaints: list[str]) -> None:
    runs = [read_scores(tmp_path / "out")] * 2
    place, *_ = write_side_by_side(tmp_path / "side", "Two", runs, [mevis], examples=1)
    page.goto(place.as_uri(), wait_until="load")
    assert page.locator("figure.viewer").count() == 3
    assert page.locator("figure.viewer").first.locator(".view").count() == 5
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    page.locator("figure.viewer input").first.press("End")
    last = mevis.videos[0].frame_names[-1]
    assert page.locator("figure.viewer output").first.text_content().startswith(f"frame {last}")
    assert complaints == []
