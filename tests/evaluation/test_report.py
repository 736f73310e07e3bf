"""The report page: every figure on it, pictures beside it, nothing from elsewhere."""

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from glus.evaluation.pages.evaluation_page import pick_examples, write_report
from glus.evaluation.pages.overlays import contact_strip
from glus.evaluation.predict.predictions import expression_folder, write_masks
from glus.evaluation.results.mean_metrics import LOST_NAMES
from glus.evaluation.results.summary import summarise
from glus.evaluation.score.scoring import score_split

pytestmark = pytest.mark.slow

VOID_TAGS = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """Links of a page, and a check that what is opened is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.tags = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def half_right(mevis, tmp_path, write_perfect):
    """Predictions of mevis: the first video's are moved, one of the second is missing, the rest are right."""
    root = tmp_path / "predictions"
    write_perfect(mevis, root)
    entry = mevis.videos[0]
    for expression in entry.expressions:
        target = mevis.read_target(0, expression, range(6))
        write_masks(root, entry, expression, np.roll(target, 8, axis=2))
    shutil.rmtree(expression_folder(root, mevis.videos[1], mevis.videos[1].expressions[0]))
    return root


def test_the_page_shows_figures_kinds_control_and_pictures(mevis, revos, half_right, tmp_path, write_perfect):
    write_perfect(revos, half_right)
    scores = score_split(mevis, half_right, False) + score_split(revos, half_right, False)
    summary = summarise(scores)
    page, *pictures = write_report(tmp_path / "out", "Demo", summary, scores, [mevis, revos], half_right)
    text = page.read_text(encoding="utf-8")
    parsed = Page(text)
    assert parsed.open == []
    assert "iframe" not in parsed.tags
    assert text.count("<script") == 1 and "src" not in text.split("<script")[1].split(">")[0]
    assert not re.search(r"https?://", text)
    for benchmark in summary.benchmarks:
        assert f"{benchmark.metrics.JF:.1f}" in text
        for name, metrics in benchmark.groups.items():
            assert f"<td>{name}</td>" in text
            assert f"{metrics.drop:.1f}" in text
    assert "Partial evaluation." in text
    assert "without target" in text
    assert "".join(f"<th>{name}</th>" for name in ("J", *LOST_NAMES)) in text
    strips, films = pictures[:12], pictures[12:]
    assert all(place.name.count("-") == 2 for place in strips)
    shown = {place.relative_to(page.parent).as_posix() for place in films}
    assert set(parsed.links) == {"data:,", *shown}
    assert parsed.links.count("overlays/0-0-best-frames.jpg") == 3  # below truth, prediction and difference
    assert all((page.parent / link).is_file() for link in shown)
    with Image.open(pictures[0]) as image:
        assert image.width > 1000


def test_the_worst_missing_one_is_shown_without_a_tint(mevis, half_right, tmp_path):
    scores = score_split(mevis, half_right, False)
    ranked = pick_examples(scores, 2)
    assert (ranked[-1][0], ranked[-1][1].missing) == ("worst", True)
    page, *pictures = write_report(tmp_path / "out", "Demo", summarise(scores), scores, [mevis], half_right)
    assert "no prediction" in page.read_text()
    video = next(i for i, entry in enumerate(mevis.videos) if entry.video == ranked[-1][1].video)
    entry, frames = mevis.videos[video], [0, 2, 3, 5]
    expression = next(exp for exp in entry.expressions if exp.id == ranked[-1][1].expression)
    plain = contact_strip(
        mevis.read_frames(video, frames),
        None,
        mevis.read_target(video, expression, frames),
        expression.text,
        [f"frame {entry.frame_names[frame]}   no prediction" for frame in frames],
    )
    with Image.open(pictures[len(ranked) - 1]) as worst:
        np.testing.assert_array_equal(np.asarray(worst), plain)


def test_examples_are_never_twice_and_the_best_come_first(mevis, half_right):
    scores = score_split(mevis, half_right, False)
    for count in (1, 2, 3, 100):
        ranked = pick_examples(scores, count)
        assert len({(score.video, score.expression) for _, score in ranked}) == len(ranked)
        metrics = [score.JF for _, score in ranked]
        assert metrics == sorted(metrics, reverse=True)
    assert len(pick_examples(scores, 100)) == len(scores)
    middle = sorted(score.JF for score in scores)[len(scores) // 2]
    assert [score.JF for rank, score in pick_examples(scores, 1) if rank == "median"] == [middle]
    assert pick_examples([], 2) == []


def test_a_split_without_ground_truth_is_said_and_not_scored(new_split, make_record, tmp_path, write_perfect):
    record = make_record("mevis", "valid", "demo-0")
    hidden = tuple(replace(exp, object_ids=(), kind="") for exp in record.expressions)
    split = new_split([replace(record, objects={}, expressions=hidden)])
    write_perfect(split, tmp_path)
    scores = score_split(split, tmp_path, False)
    page, *pictures = write_report(tmp_path / "out", "Demo", summarise(scores), scores, [split], tmp_path)
    assert f"not scored: this split has no ground truth ({len(hidden)} expressions)" in page.read_text()
    assert pictures == []


def test_expressions_cannot_put_markup_on_the_page(new_split, make_record, tmp_path, write_perfect):
    record = make_record("mevis", "valid_u", "demo-0")
    bad = tuple(replace(exp, text='"><script>alert(1)</script>') for exp in record.expressions)
    split = new_split([replace(record, expressions=bad)])
    write_perfect(split, tmp_path)
    scores = score_split(split, tmp_path, False)
    page, *_ = write_report(tmp_path / "out", "<script>", summarise(scores), scores, [split], tmp_path)
    text = page.read_text()
    assert text.count("<script") == 1 and "alert(1)</script>" not in text


def test_intervals_breakdowns_and_the_second_protocol_are_on_the_page(
    mevis, revos, half_right, tmp_path, write_perfect
):
    write_perfect(revos, half_right)
    scores = score_split(mevis, half_right, False) + score_split(revos, half_right, False)
    merged = {"ref_davis17/valid": [replace(score, dataset="ref_davis17", split="valid") for score in scores[:4]]}
    summary = summarise(scores, merged, ["a note"])
    page, *_ = write_report(tmp_path / "out", "Demo", summary, scores, [], half_right)
    text = page.read_text(encoding="utf-8")
    interval = summary.overall.intervals["JF"]
    assert f"(95 %: {interval.low:.1f} to {interval.high:.1f})" in text
    for title, parts in summary.breakdowns.items():
        assert f"<th>{title}</th>" in text and all(f"<td>{name}</td>" in text for name in parts)
    assert "Ref-DAVIS17 valid, four annotators merged" in text and "a note." in text
    assert "accuracy A 100.0, robustness R 100.0" in text
