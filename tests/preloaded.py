"""What ranks and commands import, for the process that those of tests are forked from (tests/forked.py)."""

import contextlib

with contextlib.suppress(ImportError):  # a message is for the test that needs it
    from glus.launch.quiet import quiet_libraries
    from glus.training.tracking.mlflow_client import _set_environment

    quiet_libraries()
    _set_environment()

    import deepspeed  # noqa: F401
    import mlflow.tracking  # noqa: F401
    import pytest  # noqa: F401

    import glus.training.train  # noqa: F401
