"""What ranks and commands import, for processes that those of tests are forked from (tests/forked.py, tests/warm)."""

import contextlib

from glus.common.imports import quick_imports

with contextlib.suppress(ImportError), quick_imports():  # a message is for the test that needs it
    from glus.launch.quiet import quiet_libraries
    from glus.training.tracking.mlflow_client import _set_environment

    quiet_libraries()
    _set_environment()

    import deepspeed  # noqa: F401
    import mlflow.tracking  # noqa: F401
    import pytest  # noqa: F401

    import glus.data_pipeline.shards.prepare
    import glus.demo.demo
    import glus.demo.pretrain_encoder
    import glus.demo.synthetic.demo_data
    import glus.launch.commands.evaluate
    import glus.launch.commands.select_frames
    import glus.launch.ranks.ranks
    import glus.training.train  # noqa: F401
