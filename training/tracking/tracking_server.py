"""What an MLflow server's answer means, and why there was none. The request itself is MLflow's (tracking.py)."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from glus.common.errors import TrainingError
from glus.common.urls import hide_secrets

if TYPE_CHECKING:
    import requests

#: Asked for with the experiment's name: proxies that hide /health pass it, and it needs the user's rights.
ENDPOINT = "/api/2.0/mlflow/experiments/get-by-name"
_ADVICE = "start the server, correct tracking.uri, or record into a file with tracking.uri=sqlite:///build/mlflow.db"


def check_answer(place: str, ask: "Callable[[], requests.Response]") -> None:
    """Raises TrainingError where a server does not answer as MLflow does; `ask` sends the request to ENDPOINT."""
    import requests

    try:
        answer = ask()
    except Exception as error:
        raise TrainingError(f"no MLflow server can be reached at {place} ({_reason(error)}); {_ADVICE}") from error
    if answer.status_code in (requests.codes.unauthorized, requests.codes.forbidden):
        raise TrainingError(
            f"the MLflow server at {place} refuses this user (status {answer.status_code}): set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, as its operator gave them"
        )
    try:
        content = answer.json()
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict) and {"experiment", "error_code"} & set(content):
        return  # an experiment that is not there is made later
    raise TrainingError(
        f"{place} answers, but not as an MLflow server does (status {answer.status_code} at {ENDPOINT}); {_ADVICE}"
    )


def _reason(error: BaseException) -> str:
    """Why a server was not reached, in a few words."""
    import requests

    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    # Without a second try urllib3 reports a time-out as a failed connection.
    if any(isinstance(each, requests.Timeout) or "timed out" in str(each) for each in chain):
        return "no answer in time"
    if any(isinstance(each, requests.exceptions.SSLError) for each in chain):
        return (
            "its certificate is not trusted, or ours is missing: MLFLOW_TRACKING_SERVER_CERT_PATH names the "
            "authority's file, MLFLOW_TRACKING_CLIENT_CERT_PATH ours"
        )
    found = next((each for each in chain if isinstance(each, requests.RequestException)), None)
    if found is not None:
        return type(found).__name__
    return hide_secrets(next(iter(str(error).splitlines()), type(error).__name__))
