"""A LoggedModel in MLflow for each checkpoint; of those that were evaluated, the best has the alias "best".

The client is MLflow's, from tracking.py.
"""

import math
import re
from typing import Any

#: The metric that decides, the alias of the best, and the tag that keeps the metric with a version.
METRIC, BEST, _TAG = "eval/overall/JF", "best", "figure"
_MOST_FOUND = 10


def logged_model(client: Any, run_id: str, checkpoint: str, path: str, step: int) -> str:
    """Id of the LoggedModel of a run's checkpoint, which is made where there is none: calling twice makes one."""
    run = client.get_run(run_id)
    experiment = run.info.experiment_id
    name = re.sub(r"[^A-Za-z0-9_-]", "_", f"{run.info.run_name}-{checkpoint}")
    wanted = f"name = '{name}' AND source_run_id = '{run_id}'"
    for found in client.search_logged_models([experiment], filter_string=wanted, max_results=_MOST_FOUND):
        return str(found.model_id)
    tags = {"checkpoint": checkpoint, "path": path, "step": str(step)}
    made = client.create_logged_model(experiment, name=name, source_run_id=run_id, tags=tags, model_type="GLUS")
    client.finalize_logged_model(made.model_id, "READY")
    return str(made.model_id)


def mark_best(client: Any, experiment: str, run_id: str, model_id: str, value: float) -> bool:
    """Give a model the alias "best" among those of the experiment, if its metric is above that of the best one."""
    if not math.isfinite(value):
        return False
    name = re.sub(r"[/:]", "_", experiment)
    registered = client.search_registered_models(filter_string=f"name = '{name}'", max_results=1)
    holder = registered[0] if registered else client.create_registered_model(name)
    version = dict(holder.aliases).get(BEST)
    if version is not None and float(client.get_model_version(name, version).tags[_TAG]) >= value:
        return False
    # By its place: "models:/ID" would be looked for wherever MLflow is set to, not where this client is.
    place = client.get_logged_model(model_id).artifact_location
    tags = {_TAG: repr(value)}
    made = client.create_model_version(name, source=place, run_id=run_id, tags=tags, model_id=model_id)
    client.set_registered_model_alias(name, BEST, made.version)
    return True
