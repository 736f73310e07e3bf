"""Refuse texts that no config may hold: secrets, since configs are written next to results, and broken characters."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from glus.common.errors import LaunchError
from glus.common.json_file import is_unfit
from glus.common.urls import hide_secrets, holds_secret

#: Where the libraries look for what a URL must not hold, by the URL's scheme.
_VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or ~/.aws/credentials)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_SAS_TOKEN",
}
_ALIASES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfs": "az", "abfss": "az", "adl": "az"}
_OF_MLFLOW = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"


def refuse_texts(values: Mapping[str, Any]) -> None:
    """Raise LaunchError for the first text that cannot be written back, or URL with a password, key or token in it.

    Bytes of a command line that are no UTF-8 come as halves of surrogate pairs.
    """
    for key, value in values.items():
        for text in (key, *_texts_in(value)):
            if is_unfit(text):
                raise LaunchError(f"{key}: holds NUL or bytes that are no UTF-8 text; rename it")
            if "//" in text and holds_secret(text):
                raise LaunchError(
                    f"{key}: {hide_secrets(text)} holds a secret, and configs are written next to results: take it out "
                    f"and set {_variables(key, text)}"
                )


def _texts_in(value: Any) -> Iterator[str]:
    """Yield every text of a nested value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in (*value.keys(), *value.values()):
            yield from _texts_in(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts_in(part)


def _variables(key: str, url: str) -> str:
    found = re.search(r"([A-Za-z][A-Za-z0-9+.\-]*)://", url)
    scheme = _ALIASES.get(found[1].lower(), found[1].lower()) if found else ""
    if "tracking" in key or "tracking" in url.partition("://")[0]:
        return _OF_MLFLOW
    if scheme in _VARIABLES:
        return _VARIABLES[scheme]
    name = re.sub(r"\W", "_", scheme.upper())
    return f"FSSPEC_{name}_USERNAME and FSSPEC_{name}_PASSWORD, or a file in ~/.config/fsspec"
