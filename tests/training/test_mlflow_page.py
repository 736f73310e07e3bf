"""MLflow's page in a real browser: a training among trainings, what it is, J&F and losses first, its report."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from glus.training.tracking.code_version import code_version
from glus.training.tracking.evaluation_record import log_evaluation
from glus.training.tracking.mlflow_client import TRAINING_PAGE
from glus.training.tracking.tracking import Tracker
from glus.training.tracking.tracking_place import TrackingConfig
from tests.browsing import opened_page
from tests.training.mlflow_server import mlflow_server

pytestmark = [pytest.mark.timeout(1500), pytest.mark.slow]
#: The server and the page's scripts take seconds, on a busy machine minutes.
WAIT_MS = 240_000
DESCRIPTION = "2 steps of 4 videos from mevis/train"
STEP = {"total": 0.5, "mask_bce": 0.25, "learning_rate": 1e-4, "step_seconds": 0.3, "system/node-0/cpu_percent": 50.0}
SCORES = {"eval/mevis/valid_u/JF": 40.0, "eval/mevis/valid_u/J": 39.0, "eval/overall/JF": 40.0, "eval/partial": 0.0}


def recorded_experiment(config: TrackingConfig) -> str:
    from mlflow.tracking import MlflowClient

    return str(MlflowClient(config.uri).get_experiment_by_name(config.experiment).experiment_id)


@pytest.fixture(scope="module")
def address(fresh_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of a run with an evaluation, as `glus train` and `glus evaluate` record them."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copy(fresh_database, folder / "mlflow.db")
    config = TrackingConfig(f"sqlite:///{folder}/mlflow.db", "trainings")
    with Tracker.start(config, "a_run", {"seed": 1}, {"mlflow.note.content": DESCRIPTION}) as tracker:
        for step in (1, 2):
            tracker.log_metrics(STEP, step)
    (folder / "report.html").write_text("<title>A</title><h1>The report of this run</h1>", "utf-8")
    log_evaluation(config, tracker.run_id, SCORES, 2, "step-000002", {}, [folder / "report.html"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
        with mlflow_server(folder, folder / "mlflow.db") as uri:
            yield f"{uri}{TRAINING_PAGE.format(recorded_experiment(config))}"


@pytest.fixture
def page(browser: Browser) -> Page:
    opened = opened_page(browser, [], 1400)
    opened.set_default_timeout(WAIT_MS)
    return opened


def test_a_training_is_found_and_says_what_it_is_how_good_and_where_its_report_is(address: str, page: Page) -> None:
    page.goto(address, wait_until="commit")
    row = page.get_by_role("row").filter(has_text="a_run")
    row.get_by_text("glus train").wait_for()
    assert page.get_by_text("Judges").count() == 0, "the page of prompts, not of trainings"
    page.get_by_role("link", name="a_run").first.click()
    page.get_by_text(DESCRIPTION).wait_for()
    overview = page.inner_text("body")
    assert "Source\nglus train" in overview
    if commit := code_version().get("code.commit"):
        assert f"glus train\n{commit[:7]}" in overview
    page.get_by_role("tab", name="Model metrics").click()
    page.get_by_text("mevis:valid_u").first.wait_for()
    lines = page.inner_text("body").splitlines()
    groups = ["JF", "Loss", "cost", "eval", "eval/mevis/valid_u", "train"]
    assert [line for line in lines if line in groups] == groups
    page.get_by_role("tab", name="Artifacts").click()
    for name in ("evaluation", "step-000002", "report.html"):
        page.get_by_text(name, exact=True).first.click()
    page.frame_locator("iframe").get_by_text("The report of this run").wait_for()
