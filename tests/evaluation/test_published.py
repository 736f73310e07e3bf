"""Published results: each with a source, and beside ours only where the benchmark is the same."""

import json

import pytest

from glus.common.errors import EvaluationError
from glus.evaluation.pages.comparison import write_comparison
from glus.evaluation.results.benchmarks import MERGED, protocol_for
from glus.evaluation.results.published_results import DATA, published_table, read_published


def test_every_figure_has_a_source_and_belongs_to_a_benchmark():
    results = read_published()
    assert len(results) > 80
    for each in results:
        assert protocol_for(*each.benchmark.split("/")).official, each
        assert len(each.source) > 15
        if each.J is not None:
            assert (each.J + each.F) / 2 == pytest.approx(each.JF, abs=0.2), each
    found = {(each.system, each.benchmark): each.JF for each in results if not each.group}
    assert found["GLUS-S partial", "mevis/valid"] == 49.5 and found["GLUS-S partial", "refer_youtube_vos/valid"] == 65.2
    assert found["GLUS-S", "mevis/valid"] == 50.3 and found["GLUS-S", "refer_youtube_vos/valid"] == 66.6
    assert found["GLUS-A", "mevis/valid"] == 51.3 and found["GLUS-A", "refer_youtube_vos/valid"] == 67.3


def test_only_benchmarks_of_ours_are_columns_and_ours_come_first():
    metrics = {"eval/mevis/valid_u/JF": 53.0, "eval/mevis/valid_u/J": 50.0, "eval/ref_davis17/valid/JF": 80.0}
    table = published_table({"mine": metrics}, read_published())
    assert table.columns == ("mevis/valid_u",)
    assert (table.rows[0].system, table.rows[0].metrics, table.rows[0].ours) == ("mine", (53.0,), True)
    systems = {row.system: row.metrics for row in table.rows[1:]}
    assert systems["VideoLISA-3.8B"] == (51.7,) and "GLUS-A" not in systems


def test_a_partial_run_does_not_stand_beside_whole_ones_unsaid():
    metrics = {"eval/mevis/valid_u/JF": 53.0, "eval/partial": 1.0}
    table = published_table({"mine": metrics, "other": metrics | {"eval/partial": 0.0}}, read_published())
    assert [row.system for row in table.rows[:2]] == ["mine (partial)", "other"]


def test_ref_davis17_stands_beside_our_figure_by_the_same_protocol_alone():
    metrics = {"eval/ref_davis17/valid/JF": 80.0, "eval/ref_davis17/valid/merged/JF": 70.0}
    table = published_table({"mine": metrics}, read_published())
    assert table.rows[0].metrics == (70.0,) and MERGED.dataset == "ref_davis17"
    table = published_table(
        {"mine": {"eval/revos/valid/JF": 50.0, "eval/revos/valid/referring/JF": 55.0}}, read_published()
    )
    assert dict(zip(table.columns, table.rows[0].metrics, strict=True)) == {
        "revos/valid, referring": 55.0,
        "revos/valid": 50.0,
    }


def test_pages_show_them_with_their_sources(tmp_path):
    class Run:
        run_id, name, params, history = "1", "mine", {}, {}
        metrics = {"eval/mevis/valid_u/JF": 53.0}

    table = published_table({"mine": Run.metrics}, read_published())
    page, text, *_ = write_comparison([Run()], tmp_path, published=table)
    assert "| **mine** | 53.0 | this project |" in text.read_text()
    assert (
        "| VideoLISA-3.8B | 51.7 | Bai et al., VideoLISA, NeurIPS 2024, arXiv 2409.19603, table 6 |" in text.read_text()
    )
    assert "Published results" in page.read_text() and "arXiv 2409.19603" in page.read_text()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"source": " "}, "GLUS-S partial on mevis/valid has no source"),
        ({"JF": 149.5}, "J&F is 149.5; it is 0 to 100"),
        ({"benchmark": "refer_youtube_vos/valid"}, "is there twice"),
        ({"colour": 1}, "colour: unknown key"),
        ({"JF": "90"}, "JF: Input should be a valid number"),
    ],
)
def test_an_entry_that_is_not_in_order_is_told(tmp_path, change, told):
    document = json.loads(DATA.read_text(encoding="utf-8"))
    document["results"][0] |= change
    file = tmp_path / "published.json"
    file.write_text(json.dumps(document))
    with pytest.raises(EvaluationError, match=told):
        read_published(file)
