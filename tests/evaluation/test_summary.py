"""Figures of benchmarks from made-up scores that can be checked by hand, and the files."""

import csv
import io
import json

import pytest

from glus.data_pipeline.datasets.table import DATASETS
from glus.evaluation.benchmarks import PROTOCOLS, protocol_for
from glus.evaluation.scoring import ExpressionScore, score_split
from glus.evaluation.summary import summarise, write_scores


def score(dataset, split, number, j, f, kind="", type_id=None, missing=False, control=None):
    jf = None if j is None else (j + f) / 2
    return ExpressionScore(
        dataset=dataset, split=split, video="v", expression=str(number), text=f'the "{number}", é', kind=kind,
        type_id=type_id, object_ids=("1", "2"), frames=5, missing=missing, J=j, F=f, JF=jf,
        control_expression=None if control is None else "x", control_J=control, control_F=control, control_JF=control,
    )  # fmt: skip


def test_a_benchmark_is_the_mean_over_its_expressions_and_kinds_are_apart():
    scores = [
        score("mevis", "valid_u", 0, 80.0, 90.0, "motion", control=10.0),
        score("mevis", "valid_u", 1, 40.0, 50.0, "look", control=30.0),
        score("mevis", "valid_u", 2, 0.0, 0.0, "look", missing=True),
    ]
    summary = summarise(scores)
    (benchmark,) = summary.benchmarks
    assert benchmark.benchmark == "MeViS valid_u"
    assert (benchmark.figures.J, benchmark.figures.F) == pytest.approx((40.0, 140 / 3))
    assert benchmark.figures.JF == pytest.approx((40.0 + 140 / 3) / 2)
    assert benchmark.groups["look"].JF == pytest.approx(22.5)
    assert benchmark.groups["motion"].JF == pytest.approx(85.0)
    assert (benchmark.figures.missing, benchmark.partial, summary.partial) == (1, True, True)


def test_the_drop_counts_only_expressions_with_a_control():
    scores = [
        score("mevis", "valid_u", 0, 80.0, 80.0, control=10.0),
        score("mevis", "valid_u", 1, 60.0, 60.0, control=30.0),
        score("mevis", "valid_u", 2, 0.0, 0.0),
    ]
    figures = summarise(scores).overall
    assert (figures.expressions, figures.controlled) == (3, 2)
    assert (figures.matched_JF, figures.control_JF, figures.drop) == (70.0, 20.0, 50.0)


def test_revos_is_the_unweighted_mean_of_referring_and_reasoning_and_keeps_type_2_apart():
    scores = [score("revos", "valid", n, 90.0, 90.0, type_id=0, control=30.0) for n in range(3)]
    scores += [score("revos", "valid", 3, 50.0, 70.0, type_id=1, control=50.0)]
    scores += [score("revos", "valid", 4, 100.0, 100.0, type_id=2)]
    summary = summarise(scores)
    (benchmark,) = summary.benchmarks
    assert (benchmark.figures.J, benchmark.figures.F, benchmark.figures.JF) == (70.0, 80.0, 75.0)
    assert benchmark.figures.drop == pytest.approx((60.0 + 10.0) / 2)
    assert benchmark.figures.expressions == 4
    assert list(benchmark.groups) == ["reasoning", "referring"]
    assert benchmark.without_target.JF == 100.0
    assert summary.overall.JF == pytest.approx((3 * 90 + 60) / 4)


def test_revos_without_one_of_its_halves_has_no_overall_figure():
    (benchmark,) = summarise([score("revos", "valid", 0, 90.0, 90.0, type_id=0)]).benchmarks
    assert benchmark.figures.JF is None
    assert benchmark.groups["referring"].JF == 90.0


def test_hidden_targets_are_counted_and_change_no_figure():
    known, hidden = score("mevis", "valid_u", 0, 60.0, 60.0), score("mevis", "valid_u", 1, None, None)
    (benchmark,) = summarise([known, hidden]).benchmarks
    assert (benchmark.figures.JF, benchmark.figures.expressions, benchmark.hidden) == (60.0, 1, 1)
    (benchmark,) = summarise([hidden]).benchmarks
    assert (benchmark.scored, benchmark.figures.JF, benchmark.hidden) == (False, None, 1)


def test_overall_is_the_mean_over_all_expressions_of_all_benchmarks():
    scores = [score("mevis", "valid_u", n, 30.0, 30.0) for n in range(3)] + [
        score("reason_vos", "valid", 0, 70.0, 70.0)
    ]
    summary = summarise(scores)
    assert [benchmark.figures.JF for benchmark in summary.benchmarks] == [30.0, 70.0]
    assert summary.overall.JF == 40.0


def test_no_scores_give_no_figures():
    summary = summarise([])
    assert (summary.benchmarks, summary.overall.JF, summary.overall.expressions) == ((), None, 0)


def test_every_dataset_has_a_protocol_and_its_training_split_is_no_benchmark():
    assert {protocol.dataset for protocol in PROTOCOLS} == set(DATASETS)
    for protocol in PROTOCOLS:
        splits = DATASETS[protocol.dataset].splits
        assert protocol.split is None or protocol.split in splits
        assert protocol_for(protocol.dataset, protocol.split or splits[0]).source == protocol.source
    assert protocol_for("refer_youtube_vos", "train").name == "Refer-YouTube-VOS train"
    assert protocol_for("revos", "valid").average == "referring-reasoning"
    assert not protocol_for("mevis", "train").official
    assert protocol_for("my_own", "valid").name == "my_own valid"


def test_files_hold_every_expression_and_are_replaced_as_a_whole(mevis, tmp_path, write_everything):
    write_everything(mevis, tmp_path)
    scores = score_split(mevis, tmp_path, progress=False)
    for _ in range(2):
        as_json, as_csv = write_scores(scores, summarise(scores), tmp_path / "out")
    assert sorted(place.name for place in (tmp_path / "out").iterdir()) == ["scores.csv", "scores.json"]
    document = json.loads(as_json.read_text(encoding="utf-8"))
    assert document["summary"]["overall"]["JF"] == summarise(scores).overall.JF
    assert [item["JF"] for item in document["expressions"]] == [score.JF for score in scores]
    rows = list(csv.DictReader(io.StringIO(as_csv.read_text(encoding="utf-8"), newline="")))
    assert [(row["video"], row["text"], float(row["J"])) for row in rows] == [(s.video, s.text, s.J) for s in scores]


def test_texts_with_quotes_and_letters_beyond_ascii_survive_the_table(tmp_path):
    _, as_csv = write_scores([score("mevis", "valid_u", 0, 1.0, 1.0)], summarise([]), tmp_path)
    (row,) = csv.DictReader(io.StringIO(as_csv.read_text(encoding="utf-8"), newline=""))
    assert (row["text"], row["control_JF"], row["object_ids"]) == ('the "0", é', "", "1 2")
