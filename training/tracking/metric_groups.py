"""Names of metrics in MLflow's page, which groups by what stands before the last "/" and sorts groups by code points.

JF/mevis:valid_u, JF/overall, ...     J&F of every benchmark, kind and breakdown
Loss/total, Loss/mask_bce, ...        losses of the training
cost/step_seconds, ...                time, memory, ranks
eval/mevis/valid_u/J, ...             other metrics of an evaluation
system/node-0/cpu_percent, ...        machines
train/learning_rate, ...              the optimiser

Upper case sorts first. Everywhere else (OUT/metrics.jsonl, `glus compare`) a metric has its plain name: total,
eval/mevis/valid_u/JF. Runs of earlier versions have plain names in MLflow too.
"""

import re

_COST = (
    *("step_seconds", "checkpoint_seconds", "tokens_per_second", "frames_per_second", "memory_gib"),
    *("waiting_for_data_share", "outside_step_share", "mfu", "ranks"),
)
_TRAIN = ("learning_rate", "gradient_norm", "contrastive_share")
#: Groups of plain names without a "/"; every other one is a loss.
_GROUPS = dict.fromkeys(_COST, "cost") | dict.fromkeys(_TRAIN, "train")
_LOSS = "Loss"
_JF = re.compile(r"eval/([^:]+)/JF")
_SHOWN_JF = re.compile(r"JF/([^/]+)")
_SHOWN = re.compile(rf"({_LOSS}|{'|'.join(sorted({*_GROUPS.values()}))})/([^/]+)")


def shown_name(name: str) -> str:
    """Return the name in MLflow's page of a metric with this plain name."""
    if of_benchmark := _JF.fullmatch(name):
        return f"JF/{of_benchmark[1].replace('/', ':')}"
    return name if "/" in name else f"{_GROUPS.get(name, _LOSS)}/{name}"


def plain_name(shown: str) -> str:
    """Return the plain name of a metric that MLflow has under `shown`; a plain name is returned as it is."""
    if of_benchmark := _SHOWN_JF.fullmatch(shown):
        return f"eval/{of_benchmark[1].replace(':', '/')}/JF"
    grouped = _SHOWN.fullmatch(shown)
    return grouped[2] if grouped else shown
