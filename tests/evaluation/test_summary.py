"""Metrics of benchmarks from made-up scores that can be checked by hand, and the files."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from glus.common.errors import EvaluationError
from glus.data_pipeline.datasets.table import DATASETS
from glus.evaluation.results.benchmarks import PROTOCOLS, protocol_for
from glus.evaluation.results.scores_file import read_scores, write_scores
from glus.evaluation.results.summary import named_metrics, summarise
from glus.evaluation.score.expression_score import ExpressionScore
from glus.evaluation.score.scoring import score_split


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
    assert (benchmark.metrics.J, benchmark.metrics.F) == pytest.approx((40.0, 140 / 3))
    assert benchmark.metrics.JF == pytest.approx((40.0 + 140 / 3) / 2)
    assert benchmark.groups["look"].JF == pytest.approx(22.5)
    assert benchmark.groups["motion"].JF == pytest.approx(85.0)
    assert (benchmark.metrics.missing, benchmark.partial, summary.partial) == (1, True, True)


def test_the_drop_counts_only_expressions_with_a_control():
    scores = [
        score("mevis", "valid_u", 0, 80.0, 80.0, control=10.0),
        score("mevis", "valid_u", 1, 60.0, 60.0, control=30.0),
        score("mevis", "valid_u", 2, 0.0, 0.0),
    ]
    metrics = summarise(scores).overall
    assert (metrics.expressions, metrics.controlled) == (3, 2)
    assert (metrics.matched_JF, metrics.control_JF, metrics.drop) == (70.0, 20.0, 50.0)


def test_revos_is_the_unweighted_mean_of_referring_and_reasoning_and_keeps_type_2_apart():
    scores = [score("revos", "valid", n, 90.0, 90.0, type_id=0, control=30.0) for n in range(3)]
    scores += [score("revos", "valid", 3, 50.0, 70.0, type_id=1, control=50.0)]
    scores += [score("revos", "valid", 4, 100.0, 100.0, type_id=2)]
    summary = summarise(scores)
    (benchmark,) = summary.benchmarks
    assert (benchmark.metrics.J, benchmark.metrics.F, benchmark.metrics.JF) == (70.0, 80.0, 75.0)
    assert benchmark.metrics.drop == pytest.approx((60.0 + 10.0) / 2)
    assert benchmark.metrics.expressions == 4
    assert list(benchmark.groups) == ["reasoning", "referring"]
    assert benchmark.without_target.JF == 100.0
    assert summary.overall.JF == pytest.approx((3 * 90 + 60) / 4)


def test_revos_without_one_of_its_halves_has_no_overall_figure():
    (benchmark,) = summarise([score("revos", "valid", 0, 90.0, 90.0, type_id=0)]).benchmarks
    assert benchmark.metrics.JF is None
    assert benchmark.groups["referring"].JF == 90.0


def test_hidden_targets_are_counted_and_change_no_figure():
    known, hidden = score("mevis", "valid_u", 0, 60.0, 60.0), score("mevis", "valid_u", 1, None, None)
    (benchmark,) = summarise([known, hidden]).benchmarks
    assert (benchmark.metrics.JF, benchmark.metrics.expressions, benchmark.hidden) == (60.0, 1, 1)
    (benchmark,) = summarise([hidden]).benchmarks
    assert (benchmark.scored, benchmark.metrics.JF, benchmark.hidden) == (False, None, 1)


def test_overall_is_the_mean_over_all_expressions_of_all_benchmarks():
    scores = [score("mevis", "valid_u", n, 30.0, 30.0) for n in range(3)] + [
        score("reason_vos", "valid", 0, 70.0, 70.0)
    ]
    summary = summarise(scores)
    assert [benchmark.metrics.JF for benchmark in summary.benchmarks] == [30.0, 70.0]
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


def test_files_hold_every_expression_and_video_and_are_replaced_as_a_whole(mevis, tmp_path, write_everything):
    write_everything(mevis, tmp_path)
    scores = score_split(mevis, tmp_path, progress=False)
    origin = {"title": "Demo", "predictions": str(tmp_path), "shards": "shards"}
    for _ in range(2):
        as_json, as_csv, videos = write_scores(scores, summarise(scores), tmp_path / "out", origin=origin)
    names = sorted(place.name for place in (tmp_path / "out").iterdir())
    assert names == ["scores.csv", "scores.json", "videos.csv"]
    document = json.loads(as_json.read_text(encoding="utf-8"))
    assert document["summary"]["overall"]["JF"] == summarise(scores).overall.JF
    assert [item["JF"] for item in document["expressions"]] == [score.JF for score in scores]
    rows = list(csv.DictReader(io.StringIO(as_csv.read_text(encoding="utf-8"), newline="")))
    assert [(row["video"], row["text"], float(row["J"])) for row in rows] == [(s.video, s.text, s.J) for s in scores]
    found = list(csv.DictReader(io.StringIO(videos.read_text(encoding="utf-8"), newline="")))
    assert [row["video"] for row in found] == [entry.video for entry in mevis.videos]
    of_first = [score.JF for score in scores if score.video == found[0]["video"]]
    assert float(found[0]["JF"]) == pytest.approx(sum(of_first) / len(of_first))
    read = read_scores(tmp_path / "out")
    assert (read.title, read.predictions, list(read.expressions)) == ("Demo", tmp_path, scores)
    assert read.summary == summarise(scores)
    assert document["summary"]["benchmarks"][0]["figures"]["JF"] == read.summary.benchmarks[0].metrics.JF


def test_a_folder_without_scores_or_with_other_ones_is_told(tmp_path):
    with pytest.raises(EvaluationError, match=r"scores\.json is not there: name a folder that `glus evaluate`"):
        read_scores(tmp_path)
    (tmp_path / "scores.json").write_text('{"format": 1}')
    with pytest.raises(EvaluationError, match="format 1, this code reads 2"):
        read_scores(tmp_path)


def test_texts_with_quotes_and_letters_beyond_ascii_survive_the_table(tmp_path):
    _, as_csv, _ = write_scores([score("mevis", "valid_u", 0, 1.0, 1.0)], summarise([]), tmp_path)
    (row,) = csv.DictReader(io.StringIO(as_csv.read_text(encoding="utf-8"), newline=""))
    assert (row["text"], row["control_JF"], row["object_ids"]) == ('the "0", é', "", "1 2")


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1", "-1+cmd", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_text_that_a_spreadsheet_would_compute_is_marked_as_text(tmp_path, text):
    given = replace(score("mevis", "valid_u", 0, 0.5, 0.5), text=text, video=text, J=-0.5)
    as_json, as_csv, videos = write_scores([given], summarise([given]), tmp_path)
    for file in (as_csv, videos):
        (row,) = csv.DictReader(io.StringIO(file.read_bytes().decode(), newline=""))
        marked = "'" + text.replace("\r", "\n")
        assert row["video"] == marked
        assert file is videos or (row["text"], float(row["J"])) == (marked, -0.5)
    assert json.loads(as_json.read_text(encoding="utf-8"))["expressions"][0]["text"] == text


def in_videos(metrics, name="mevis"):
    """Scores of several videos, one list of J&F a video."""
    return [
        replace(score(name, "valid_u", number, jf, jf), video=f"v{video}")
        for video, found in enumerate(metrics)
        for number, jf in enumerate(found)
    ]


def test_an_interval_is_that_of_drawing_whole_videos():
    """Against a bootstrap written out, with draws of its own."""
    metrics = [[10.0, 20.0, 30.0], [80.0], [40.0, 60.0], [55.0], [90.0, 10.0]]
    (benchmark,) = summarise(in_videos(metrics)).benchmarks
    found = benchmark.metrics.intervals["JF"]
    rng = np.random.Generator(np.random.Philox(key=77))
    means = [np.mean(np.concatenate([metrics[v] for v in rng.integers(0, 5, 5)])) for _ in range(20_000)]
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=2.0)
    assert found.low < benchmark.metrics.JF < found.high
    assert summarise(in_videos(metrics)).benchmarks[0].metrics.intervals == benchmark.metrics.intervals


def test_videos_that_score_alike_have_a_narrow_interval_and_a_single_video_none():
    (alike,) = summarise(in_videos([[50.0, 50.0], [50.0], [50.0]])).benchmarks
    assert (alike.metrics.intervals["JF"].low, alike.metrics.intervals["JF"].high) == (50.0, 50.0)
    (single,) = summarise(in_videos([[50.0, 60.0]])).benchmarks
    assert single.metrics.intervals == {}


def test_breakdowns_tell_size_rivals_and_absence_apart():
    base = score("mevis", "valid_u", 0, 10.0, 10.0)
    scores = [
        replace(base, size=0.005, rivals=0, frames_without_object=0),
        replace(base, expression="1", size=0.05, rivals=5, frames_without_object=2, J=40.0, F=40.0, JF=40.0),
        replace(base, expression="2", size=0.5, rivals=9, frames_without_object=4, J=90.0, F=90.0, JF=90.0),
    ]
    summary = summarise(scores)
    shown = {title: {name: part.JF for name, part in parts.items()} for title, parts in summary.breakdowns.items()}
    assert shown == {
        "object size": {"small": 10.0, "medium": 40.0, "large": 90.0},
        "rivals": {"0": 10.0, "4 or more": 65.0},
        "frames without object": {"always seen": 10.0, "absent in up to half": 40.0, "absent in more than half": 90.0},
    }
    assert named_metrics(summary)["eval/frames_without_object/always_seen/JF"] == 10.0


def test_accuracy_and_robustness_are_averaged_as_j_and_f_are():
    scores = [replace(score("revos", "valid", n, 50.0, 50.0, type_id=n % 2), A=90.0 - 10 * n, R=80.0) for n in range(3)]
    (benchmark,) = summarise(scores).benchmarks
    assert (benchmark.metrics.A, benchmark.metrics.R) == (80.0, 80.0)
    assert benchmark.groups["referring"].A == 80.0 and benchmark.groups["reasoning"].A == 80.0
    assert named_metrics(summarise(scores))["eval/revos/valid/A"] == 80.0


def test_partial_figures_say_so_under_every_name():
    named = named_metrics(summarise([score("mevis", "valid_u", 0, 0.0, 0.0, missing=True)]))
    assert (named["eval/partial"], named["eval/mevis/valid_u/missing"]) == (1.0, 1.0)
    whole = [score("mevis", "valid_u", 0, 90.0, 90.0)]
    assert named_metrics(summarise(whole))["eval/partial"] == 0.0
    named = named_metrics(summarise(whole, left_out={"mevis/valid_u": ["a", "b"], "revos/valid": []}))
    assert (named["eval/partial"], named["eval/mevis/valid_u/videos_left_out"]) == (1.0, 2.0)
