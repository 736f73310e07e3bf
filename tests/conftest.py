"""Settings of all tests."""

import sys
from pathlib import Path

# A spawned process imports a test's own functions as `tests.FOLDER.test_MODULE`, so the repository must be on its path
# (multiprocessing hands ours on). Last, not first: a bare `training` stays sam2's and never becomes ours.
sys.path.append(str(Path(__file__).parents[1]))
