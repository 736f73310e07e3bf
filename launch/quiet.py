"""Silence libraries when a command or a rank starts, never at import. Errors and our own output stay.

Child processes inherit environment variables but not logger levels, so a rank calls this again.
"""

import logging
import os
import sys
import traceback
import warnings
from types import TracebackType

from glus.common.terminal import PlainFormatter, plain, quiet_other_bars

#: For this process and its children (ranks, Ray workers), where the user has not set them.
ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_DEDUP_LOGS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "GLOG_minloglevel": "2",
    # As in training/tracking/mlflow_client.py: DeepSpeed imports MLflow earlier, and MLflow reads this only then.
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "PYTHONWARNINGS": "ignore::FutureWarning,ignore::DeprecationWarning,ignore::UserWarning",
}
LOGGERS = (
    "transformers",
    "huggingface_hub",
    "deepspeed",
    "DeepSpeed",
    "ray",
    "mlflow",
    "alembic",
    "torch.distributed",
    "torch.multiprocessing",
    "torch.distributed.elastic",
    "matplotlib",
    "peft",
    "urllib3",
    "iopath",
    "hydra",
)


def quiet_libraries() -> None:
    """Set warning filters, logger levels and environment variables for this process and those it starts."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    quiet_other_bars()
    for category in (FutureWarning, DeprecationWarning, UserWarning):
        warnings.simplefilter("ignore", category)
    sys.excepthook = _without_secrets
    if logging.lastResort is not None:  # prints our warnings, which hold names from outside
        logging.lastResort.setFormatter(PlainFormatter())
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.ERROR)
        # Some set their own level when they are imported (DeepSpeed does); a filter outlives that.
        logger.addFilter(_only_errors)


def _only_errors(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def _without_secrets(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a bug's traceback as Python does, but no password of a URL and no escape sequence of a name in it."""
    print(plain("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)
