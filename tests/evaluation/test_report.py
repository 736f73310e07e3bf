"""The report page: every figure on it, pictures beside it, nothing from elsewhere."""

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from glus.evaluation.overlays import contact_strip
from glus.evaluation.predictions import expression_folder, write_masks
from glus.evaluation.report import RunFigures, pick_examples, write_report
from glus.evaluation.scoring import score_split
from glus.evaluation.summary import summarise

VOID_TAGS = {"meta", "link", "img", "br"}


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
    assert {"script", "iframe"}.isdisjoint(parsed.tags)
    assert not re.search(r"https?://", text)
    for benchmark in summary.benchmarks:
        assert f"{benchmark.figures.JF:.1f}" in text
        for name, figures in benchmark.groups.items():
            assert f"<td>{name}</td>" in text
            assert f"{figures.drop:.1f}" in text
    assert "Partial evaluation." in text
    assert "without target" in text
    assert len(pictures) == 12
    assert sorted(parsed.links) == sorted(
        ["data:,", *(place.relative_to(page.parent).as_posix() for place in pictures)]
    )
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
    with Image.open(pictures[-1]) as worst:
        np.testing.assert_array_equal(np.asarray(worst), plain)


def test_examples_are_never_twice_and_the_best_come_first(mevis, half_right):
    scores = score_split(mevis, half_right, False)
    for count in (1, 2, 3, 100):
        ranked = pick_examples(scores, count)
        assert len({(score.video, score.expression) for _, score in ranked}) == len(ranked)
        figures = [score.JF for _, score in ranked]
        assert figures == sorted(figures, reverse=True)
    assert len(pick_examples(scores, 100)) == len(scores)
    middle = sorted(score.JF for score in scores)[len(scores) // 2]
    assert [score.JF for rank, score in pick_examples(scores, 1) if rank == "median"] == [middle]
    assert pick_examples([], 2) == []


def test_runs_stand_side_by_side_with_what_differs(mevis, half_right, tmp_path):
    scores = score_split(mevis, half_right, False)
    runs = [
        RunFigures("glus-s", {"lr": "3e-4", "seed": 1}, {"MeViS valid_u J&F": 50.3}),
        RunFigures("glus-a", {"lr": "1e-4", "seed": 1}, {"MeViS valid_u J&F": 51.3, "ReVOS valid J&F": None}),
    ]
    page, *_ = write_report(tmp_path / "out", "Demo", summarise(scores), scores, [], half_right, runs)
    text = page.read_text()
    assert '<td class="wrap best">51.3</td>' in text
    assert "<td>lr</td>" in text
    assert "<td>seed</td>" not in text


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
    assert "<script" not in page.read_text()
