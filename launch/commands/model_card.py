"""README.md of an exported release: the model card of the Hugging Face hub, with where its weights come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glus.common.errors import LaunchError
from glus.common.terminal import one_line
from glus.data_pipeline.sampling.frame_labels import CHECKPOINT, WEIGHTS
from glus.evaluation.predict.model_source import ModelSource
from glus.evaluation.predict.predictions import model_of
from glus.evaluation.predict.provenance import MASKS
from glus.evaluation.results.scores_file import Scored, read_scores
from glus.evaluation.results.summary import BenchmarkSummary
from glus.model.released.hub import hub_id
from glus.model.released.release_methods import RELEASED_METHODS
from glus.training.checkpoints.checkpoint import RunState
from glus.training.run_config import RunConfig
from glus.training.tracking.code_version import code_version

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

CARD = "README.md"
_TASK = "referring-video-object-segmentation"
_TEMPLATE = Path(__file__).with_name("model_card.md.jinja")


@dataclass(frozen=True)
class Trained:
    """A checkpoint that is exported: its folder, its run's config, and its state."""

    folder: Path
    run: RunConfig
    state: RunState


def write_card(
    release: Path, name: str, trained: Trained, dtype: str, licence: str, evaluation: Scored | None = None
) -> None:
    """Write `release`/README.md; `name` is the release's, `evaluation` one of this checkpoint. Raises OSError."""
    from huggingface_hub import ModelCard, ModelCardData

    run, state = trained.run, trained.state
    method = run.model.method
    benchmarks = [each for each in evaluation.summary.benchmarks if each.scored] if evaluation else []
    datasets = sorted({split.partition("/")[0] for split in run.sampling.mixture})
    data = ModelCardData(
        license=licence,
        library_name="glus",
        pipeline_tag="image-segmentation",
        tags=[_TASK, "video-object-segmentation", method],
        base_model=[str(hub_id(place)) for place in run.weights.named.values() if hub_id(place)] or None,
        datasets=datasets or None,
        metrics=["J&F"] if benchmarks else None,
        model_name=name if benchmarks else None,
        eval_results=_results(benchmarks) or None,
    )
    version = code_version()
    provenance = {
        "run": f"{run.name}, step {state.step}, seed {run.seed}",
        "MLflow run": state.tracking_run or "none",
        "trained by": f"glus {state.code_version}",
        "exported by": f"glus {version['code.version']}",
        "language model's precision": dtype,
        "started from": run.init_from or ", ".join(run.weights.named.values()) or "freshly drawn weights",
        "training data": ", ".join(sorted(run.sampling.mixture)) or "all splits for training below its shards",
        "fingerprint of the data": state.data_fingerprint,
    }
    card = ModelCard.from_template(
        data,
        template_path=str(_TEMPLATE),
        name=name,
        title=RELEASED_METHODS[method].title,
        rows=[_row(each) for each in benchmarks],
        partial=evaluation is not None and evaluation.summary.partial,
        provenance=[(key, one_line(value).replace("|", "\\|")) for key, value in provenance.items()],
    )
    (release / CARD).write_text(f"{card.content}\n", encoding="utf-8")


def evaluation_of(place: Path, checkpoint: Path) -> Scored:
    """The evaluation in a folder of `glus evaluate`. Raises LaunchError where it is of other weights than `checkpoint`,
    EvaluationError, InputError or TrainingError where it cannot be read."""
    scored = read_scores(place)
    made_by = model_of(place / MASKS)
    if made_by.get(WEIGHTS) != ModelSource.find(checkpoint).digest():
        raise LaunchError(
            f"evaluation={place} is of {made_by.get(CHECKPOINT, 'an unknown model')}, whose weights are not those of "
            f"{checkpoint}: name an evaluation of this checkpoint, or leave it out"
        )
    return scored


def _results(benchmarks: Sequence[BenchmarkSummary]) -> list["EvalResult"]:
    from huggingface_hub import EvalResult

    found = []
    for each in benchmarks:
        values = {"J&F": each.metrics.JF, "J": each.metrics.J, "F": each.metrics.F}
        for name, value in values.items():
            if value is not None:
                found.append(
                    EvalResult(
                        task_type=_TASK,
                        dataset_type=each.dataset,
                        dataset_name=each.benchmark,
                        dataset_split=each.split,
                        metric_type=name,
                        metric_name=name,
                        metric_value=round(value, 2),
                    )
                )
    return found


def _row(benchmark: BenchmarkSummary) -> list[str]:
    metrics = benchmark.metrics
    shown = ["-" if value is None else f"{value:.1f}" for value in (metrics.JF, metrics.J, metrics.F)]
    return [benchmark.benchmark, *shown, str(benchmark.videos)]
