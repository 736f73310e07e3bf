"""No password or key in a config: configs are written next to results, recorded, and handed to other machines."""

import re
from collections.abc import Mapping
from typing import Any

from glus.common.errors import LaunchError
from glus.common.urls import hide_secrets, holds_secret

#: Where the libraries look for what a URL must not hold, by the URL's scheme.
_VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or ~/.aws/credentials)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_SAS_TOKEN",
}
_ALIASES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfs": "az", "abfss": "az", "adl": "az"}
_OF_MLFLOW = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"


def refuse_secrets(values: Mapping[str, Any]) -> None:
    """Raises LaunchError for the first URL that holds a user's password, a key, a token or a signature."""
    for key, value in values.items():
        waiting = [value]
        while waiting:
            part = waiting.pop()
            if isinstance(part, Mapping):
                waiting += [*part.keys(), *part.values()]
            elif isinstance(part, (list, tuple)):
                waiting += part
            elif isinstance(part, str) and "//" in part and holds_secret(part):
                raise LaunchError(
                    f"{key}: {hide_secrets(part)} holds a secret, and configs are written next to results: take it out "
                    f"and set {_variables(key, part)}"
                )


def _variables(key: str, url: str) -> str:
    found = re.search(r"([A-Za-z][A-Za-z0-9+.\-]*)://", url)
    scheme = _ALIASES.get(found[1].lower(), found[1].lower()) if found else ""
    if "tracking" in key or "tracking" in url.partition("://")[0]:
        return _OF_MLFLOW
    if scheme in _VARIABLES:
        return _VARIABLES[scheme]
    name = re.sub(r"\W", "_", scheme.upper())
    return f"FSSPEC_{name}_USERNAME and FSSPEC_{name}_PASSWORD, or a file in ~/.config/fsspec"
