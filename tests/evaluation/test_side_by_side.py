"""Two evaluations on one page: what differs, how surely, and the expressions where it does."""

from dataclasses import replace

import pytest

from glus.common.errors import EvaluationError
from glus.evaluation.pages.side_by_side import gaps, metric_rows, pick_gains, write_side_by_side
from glus.evaluation.results.scores_file import read_scores, write_scores
from glus.evaluation.results.summary import summarise
from glus.evaluation.score.scoring import score_split
from glus.launch import cli


@pytest.fixture
def two_runs(mevis, tmp_path, write_perfect, write_everything):
    """The ground truth, and all objects whatever is asked, both scored."""
    runs = []
    for name, write in (("right", write_perfect), ("all", write_everything)):
        write(mevis, tmp_path / name / "predictions")
        scores = score_split(mevis, tmp_path / name / "predictions", False)
        origin = {
            "title": name,
            "predictions": str(tmp_path / name / "predictions"),
            "shards": mevis.storage.place,
        }
        write_scores(scores, summarise(scores), tmp_path / name, origin=origin)
        runs.append(read_scores(tmp_path / name))
    return runs


def test_figures_and_differences_stand_beside_each_other(mevis, two_runs, tmp_path):
    page, *films = write_side_by_side(tmp_path / "out", "Two", two_runs, [mevis])
    text = page.read_text(encoding="utf-8")
    right, every = (run.summary.overall.JF for run in two_runs)
    assert f"{every - right:+.1f}" in text and right == 100.0
    assert [row.best for row in metric_rows(two_runs)][:3] == [(0,), (0,), (0,)]
    assert all(
        text.count(f"{name}: {what}</span>") == 6 for name in ("right", "all") for what in ("prediction", "difference")
    )
    assert len(films) == 6 * 6 and all(film.is_file() for film in films)


def test_the_interval_of_a_difference_is_paired(two_runs):
    """What both runs lose on the same videos cancels: a constant gap has no width."""
    first = {score.name: score for score in two_runs[0].expressions}
    lower = {name: replace(score, JF=score.JF - 7.0) for name, score in first.items()}
    (gap,) = gaps([first, lower], list(first))
    assert (gap.JF, gap.expressions) == (pytest.approx(-7.0), len(first))
    assert (gap.interval.low, gap.interval.high) == (pytest.approx(-7.0), pytest.approx(-7.0))
    assert gap.verdict == "lower"


def test_gained_median_and_lost_come_in_this_order_and_never_twice():
    gains = {f"e{number}": float(number) for number in range(9)}
    picked = pick_gains(gains, 2)
    assert picked == [
        (rank, f"e{n}")
        for rank, n in zip(("gained",) * 2 + ("median",) * 2 + ("lost",) * 2, (8, 7, 5, 4, 1, 0), strict=True)
    ]
    assert pick_gains({"a": 1.0}, 2) == [("gained", "a")]


def test_runs_that_share_nothing_or_a_single_one_are_refused(two_runs, tmp_path):
    with pytest.raises(EvaluationError, match="1 evaluations to set side by side: give two or more"):
        write_side_by_side(tmp_path / "out", "One", two_runs[:1], [])
    other = replace(two_runs[1], expressions=tuple(replace(s, video="other") for s in two_runs[1].expressions))
    with pytest.raises(EvaluationError, match="right and all have no scored expression in common"):
        write_side_by_side(tmp_path / "out", "Two", [two_runs[0], other], [])


@pytest.mark.usefixtures("two_runs")
def test_the_command_reads_what_scoring_wrote(mevis, tmp_path, capsys):
    (tmp_path / "shards" / "mevis").mkdir(parents=True)
    (tmp_path / "shards" / "mevis" / "valid_u").symlink_to(mevis.storage.place)
    folders = [str(tmp_path / name) for name in ("right", "all")]
    assert cli.main(["report", *folders, f"out={tmp_path / 'page'}", f"shards={tmp_path / 'shards'}"]) == 0
    assert capsys.readouterr().out == f"written: {tmp_path / 'page' / 'side_by_side.html'}\n"
    assert cli.main(["report", folders[0]]) == 2
    assert "1 evaluations: name two folders" in capsys.readouterr().err
    assert cli.main(["report", folders[0], str(tmp_path)]) == 2
    assert "scores.json is not there" in capsys.readouterr().err
