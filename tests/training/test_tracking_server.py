"""An MLflow server behind what sites put in front of it: the check before a training asks as MLflow's client does."""

import base64
import shutil
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from glus.common.errors import TrainingError
from glus.training.tracking.mlflow_client import check_reachable, reach
from glus.training.tracking.recorded_runs import find_runs
from glus.training.tracking.tracking import Tracker
from glus.training.tracking.tracking_place import TrackingConfig
from tests.training.mlflow_server import mlflow_server, private_certificate, proxy

# The server imports for seconds, on a busy machine for a minute.
pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]
BASIC = "Basic " + base64.b64encode(b"me:pass word").decode()


@pytest.fixture(scope="module")
def server(fresh_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(fresh_database, folder / "server.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # more processes that nobody needs here
        with mlflow_server(folder, folder / "server.db") as uri:
            yield uri


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    file = private_certificate(tmp_path, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context, file


def recorded(uri: str) -> None:
    """A run goes there and comes back."""
    config = TrackingConfig(uri, "served")
    check_reachable(config)
    with Tracker.start(config, "remote", {"seed": 1}) as tracker:
        tracker.log_metrics({"loss": 1.0, "worst": float("inf"), "none": float("nan")}, 0)
    [run] = find_runs(config, [tracker.run_id])
    assert run.metrics["loss"] == 1.0 and run.metrics["worst"] == float("inf") and run.status == "FINISHED"
    assert run.metrics["none"] != run.metrics["none"]


def test_a_path_prefix(server: str) -> None:
    with proxy(server, "/team/mlflow") as uri:
        recorded(uri)
        recorded(f"{uri}/")
        with pytest.raises(TrainingError, match=r"answers, but not as an MLflow server does \(status 404 at"):
            check_reachable(TrackingConfig(uri.removesuffix("/mlflow")))


def test_user_and_password(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy(server, authorization=BASIC) as uri:
        refused = r"refuses this user \(status 401\): set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        with pytest.raises(TrainingError, match=refused):
            reach(TrackingConfig(uri))
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "pass word")
        recorded(uri)


def test_user_and_password_of_mlflows_own_variable_are_used_and_never_shown(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "")
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}")
    with proxy(server, authorization=BASIC) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.replace("://", "://me:pass%20word@"))
        assert reach(TrackingConfig(experiment="served")) == f"{uri}, experiment served"


def test_a_token(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy(server, authorization="Bearer secret-token-1") as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret-token-1")
        recorded(uri)
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "another-token-2")
        with pytest.raises(TrainingError, match="refuses this user") as refused:
            reach(TrackingConfig(uri))
        assert "another-token-2" not in str(refused.value)


def test_a_private_certificate(server: str, tls: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    context, file = tls
    with proxy(server, context=context) as uri:
        with pytest.raises(TrainingError, match="certificate is not trusted.*MLFLOW_TRACKING_SERVER_CERT_PATH"):
            reach(TrackingConfig(uri))
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(file))
        recorded(uri)
        monkeypatch.delenv("MLFLOW_TRACKING_SERVER_CERT_PATH")
        monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
        assert reach(TrackingConfig(uri))


def test_a_certificate_of_the_client(
    server: str, tls: tuple[ssl.SSLContext, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, file = tls
    ours = private_certificate(tmp_path, "client")
    context.load_verify_locations(ours)
    context.verify_mode = ssl.CERT_REQUIRED
    with proxy(server, context=context) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(file))
        with pytest.raises(TrainingError, match="no MLflow server can be reached"):
            reach(TrackingConfig(uri))
        monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", str(ours))
        recorded(uri)


def test_a_certificate_file_that_is_not_there_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", "/none/ca.pem")
    with pytest.raises(TrainingError, match="no MLflow server can be reached.*/none/ca.pem"):
        reach(TrackingConfig("https://127.0.0.1:9"))


def test_a_server_that_never_answers_takes_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.perf_counter()
        with pytest.raises(TrainingError, match="no answer in time"):
            check_reachable(TrackingConfig(f"http://127.0.0.1:{silent.getsockname()[1]}"))
        assert time.perf_counter() - start < 20
