"""`glus compare`: what is read first, folders of evaluations without MLflow, recorded runs with their scores."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from glus.evaluation.results.scores_file import write_scores
from glus.evaluation.results.summary import named_metrics, summarise
from glus.evaluation.score.expression_score import ExpressionScore
from glus.launch import cli
from glus.training.tracking.evaluation_record import log_evaluation
from glus.training.tracking.tracking import Tracker
from glus.training.tracking.tracking_place import TrackingConfig

BASE = [
    ExpressionScore(
        *("mevis", "valid_u", f"v{n % 5}", str(n), "a text", ("look", "motion")[n % 2], None, ("1",), 6, False),
        *(40.0 + n, 60.0 + n, 50.0 + n),
    )
    for n in range(20)
]


def shifted(gain: float) -> list[ExpressionScore]:
    return [replace(score, JF=(score.JF or 0.0) + gain) for score in BASE]


def evaluation(out: Path, gain: float) -> Path:
    """A folder as `glus score` writes it."""
    scores = shifted(gain)
    origin = {"title": out.name, "predictions": str(out / "masks"), "shards": "shards"}
    write_scores(scores, summarise(scores), out, origin=origin)
    return out


def test_folders_of_evaluations_are_compared_without_mlflow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [str(evaluation(tmp_path / name, gain)) for name, gain in (("base", 0.0), ("same", 0.0), ("more", 3.0))]
    assert cli.main(["compare", *folders, "out=pages"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("J&F by benchmark")
    assert "MeViS valid_u" in shown and "J&F minus that of base" in shown
    words = [line.split() for line in shown.splitlines() if "no difference shown" in line]
    assert words and all(line == ["no", "difference", "shown", "(20)", "higher", "(20)"] for line in words)
    page = (tmp_path / "pages" / "comparison.html").read_text(encoding="utf-8")
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings[:3] == ["J&amp;F by benchmark", "J&amp;F minus that of base", "Kinds and breakdowns, J&amp;F"]
    assert not list(tmp_path.rglob("*.db")), "no MLflow is needed"
    assert cli.main(["compare", folders[0], "nobody", "tracking.uri=sqlite:///none.db"]) == 2
    assert "no such MLflow file" in capsys.readouterr().err


@pytest.mark.slow
def test_recorded_runs_have_paired_differences_cost_and_short_parameters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db")
    common = [f"language.model.part_{number}.*" for number in range(6)]
    for name, gain, trainable in (("first", 0.0, common), ("second", 2.0, [*common, "segmenter.decoder.*"])):
        params = {"name": name, "out": f"build/{name}", "trainable": trainable, "note": "x" * 400 + name}
        with Tracker.start(config, name, params) as tracker:
            for step in (10, 20):
                values = {"total": 1.0 / step, "step_seconds": 180.0, "ranks": 2.0, "tokens_per_second": 5.0}
                tracker.log_metrics(values | {"system/node-0/cpu_percent": 50.0}, step)
        out = evaluation(tmp_path / name, gain)
        tags, metrics = {"checkpoint": "step-000020"}, named_metrics(summarise(shifted(gain)))
        log_evaluation(config, tracker.run_id, metrics, 20, "step-000020", tags, [out / "scores.json"])
    assert cli.main(["compare", "first", "second", f"tracking.uri={config.uri}", f"out={tmp_path}/pages"]) == 0
    shown = capsys.readouterr().out
    assert "+2.0" in shown and "higher (20)" in shown
    [hours] = [line for line in shown.splitlines() if "GPU-hours" in line]
    assert hours.split()[-2:] == ["2", "2"]  # 20 steps of 180 s on 2 ranks
    assert "segmenter.decoder.*" in shown and "part_3" not in shown and "x" * 60 not in shown
    assert "build/first" not in shown and "cpu_percent" not in shown
    page = (tmp_path / "pages" / "comparison.html").read_text(encoding="utf-8")
    assert page.index("Losses, last values") < page.index("<h2>Curves") < page.index("<h2>Cost")
    assert page.index("<h2>Cost") < page.index("Parameters that differ") < page.index("<details>")
    folded = page[page.index("<details>") :]
    assert "System metrics" in folded and "cpu_" in folded and "cpu_" not in page[: page.index("<details>")]
    # A folder and a recorded run, in the order of the words.
    words = [str(tmp_path / "second"), "first", f"tracking.uri={config.uri}", "out=null"]
    assert cli.main(["compare", *words]) == 0
    assert "-2.0" in capsys.readouterr().out
