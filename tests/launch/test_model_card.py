"""The model card of `glus export`: a header that the hub reads, and where the weights come from."""

import subprocess
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from glus.evaluation.predict.model_source import ModelSource
from glus.evaluation.results.scores_file import read_scores
from glus.launch import cli
from tests.untrained import write_checkpoint

pytestmark = pytest.mark.slow

CHANGES = ("name=small|run", "weights.language=lab/base-7b", "weights.segmenter=/nowhere/sam2.pt", "seed=3")


@pytest.fixture(scope="module")
def checkpoint(tiny_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    mixture = "sampling.mixture={mevis/train: 1, ref_davis17/train: 1}"
    return write_checkpoint(tiny_demo, tmp_path_factory.mktemp("card") / "run", mixture, *CHANGES)


@pytest.fixture(scope="module")
def evaluation(checkpoint: Path, tiny_demo: Path) -> Path:
    out = checkpoint.parents[2] / "evaluation"
    words = [f"checkpoint={checkpoint}", f"shards={tiny_demo}/shards", f"out={out}", "record=false", "report=false"]
    assert cli.main(["evaluate", *words, "processes=1"]) == 0
    return out


def test_the_card_has_what_the_hub_reads_and_what_the_evaluation_found(
    checkpoint: Path, evaluation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "glus-small"
    words = ["form=safetensors", "licence=llama2", f"evaluation={evaluation}"]
    assert cli.main(["export", str(checkpoint), "--out", str(out), *words]) == 0
    assert f"hf upload ORG/glus-small {out} ." in capsys.readouterr().out
    card = ModelCard.load(out / "README.md")
    data = card.data.to_dict()
    assert data["license"] == "llama2" and data["library_name"] == "glus"
    assert data["base_model"] == ["lab/base-7b"] and data["datasets"] == ["mevis", "ref_davis17"]
    assert data["pipeline_tag"] == "image-segmentation" and "glus" in data["tags"]
    [benchmark] = [each for each in read_scores(evaluation).summary.benchmarks if each.scored]
    found = {each.metric_name: each.metric_value for each in card.data.eval_results or []}
    assert found == {name: pytest.approx(getattr(benchmark.metrics, name.replace("&", "")), abs=0.01) for name in found}
    assert set(found) == {"J&F", "J", "F"} and card.data.model_name == "glus-small"
    assert f"| {benchmark.benchmark} | {benchmark.metrics.JF:.1f} |" in card.text
    assert "| run | small\\|run, step 1, seed 3 |" in card.text
    assert "--weights ORG/glus-small --out OUT" in card.text
    # It may be written anew before it is shared.
    assert "README.md" not in (out / "SHA256SUMS").read_text(encoding="utf-8")
    (out / "README.md").write_text("another", encoding="utf-8")
    ModelSource.find(out).check_weights()
    done = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=out, check=False)
    assert done.returncode == 0
    ModelSource.find(out).load(torch.device("cpu"))


def test_without_an_evaluation_the_card_has_no_metrics(checkpoint: Path, tmp_path: Path) -> None:
    assert cli.main(["export", str(checkpoint), "--out", str(tmp_path / "out")]) == 0
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.eval_results is None and card.data.license == "other" and "## Results" not in card.text


def test_an_evaluation_of_other_weights_is_refused(
    checkpoint: Path, evaluation: Path, tiny_demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_checkpoint(tiny_demo, tmp_path / "other", seed=7)
    assert cli.main(["export", str(other), "--out", str(tmp_path / "out"), f"evaluation={evaluation}"]) == 2
    message = capsys.readouterr().err
    assert f"evaluation={evaluation} is of {checkpoint}, whose weights are not those of {other}" in message
    assert not (tmp_path / "out").exists()
    assert cli.main(["export", str(other), "--out", str(tmp_path / "out"), f"evaluation={tmp_path}"]) == 2
    assert "scores.json" in capsys.readouterr().err
