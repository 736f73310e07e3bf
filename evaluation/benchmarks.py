"""The benchmarks: which split each one scores, how its figures are averaged, and where that is written down."""

import re
from dataclasses import dataclass
from typing import Literal

Average = Literal["expressions", "referring-reasoning"]
"""How the figures of a benchmark come from those of its expressions.

expressions: the mean over all expressions.
referring-reasoning: the mean over referring expressions, the mean over reasoning ones, and the unweighted mean of both.
"""


@dataclass(frozen=True)
class Protocol:
    """How one benchmark is scored. In all of them J and F of an expression are means over all its frames, the first and
    the last too.

    `split` is None where every split with masks is scored alike; `official` is False for data of no benchmark.
    """

    name: str
    dataset: str
    split: str | None
    average: Average
    source: str
    note: str = ""
    official: bool = True


PROTOCOLS: tuple[Protocol, ...] = (
    Protocol(
        "MeViS valid_u",
        "mevis",
        "valid_u",
        "expressions",
        "Ding et al., MeViS, ICCV 2023; github.com/henghuiding/MeViS, tools/eval_mevis.py",
        "An expression's target is the union of its objects.",
    ),
    Protocol(
        "Ref-DAVIS17 valid",
        "davis17",
        "valid",
        "expressions",
        "Khoreva et al., ACCV 2018; averaged as by GLUS, Lin et al., CVPR 2025",
        "Each expression on its own against its object's mask, not four annotators with merged label maps.",
    ),
    Protocol(
        "ReVOS valid",
        "revos",
        "valid",
        "referring-reasoning",
        "Yan et al., VISA, ECCV 2024; github.com/cilinyan/VISA, tools/eval_revos.py",
        "Overall is the unweighted mean of referring (type_id 0) and reasoning (type_id 1); type_id 2 is kept apart.",
    ),
    Protocol(
        "ReasonVOS",
        "reasonvos",
        None,
        "expressions",
        "Bai et al., VideoLISA, NeurIPS 2024; github.com/showlab/VideoLISA, evaluation/reason_vos/eval_reason_vos.py",
    ),
    Protocol(
        "Refer-YouTube-VOS",
        "refyoutubevos",
        None,
        "expressions",
        "Seo et al., URVOS, ECCV 2020",
        "The masks of valid are held by the benchmark's server: only splits with masks are scored here.",
    ),
    Protocol(
        "LV-VIS",
        "lvvis",
        None,
        "expressions",
        "Wang et al., LV-VIS, ICCV 2023; expressions are category names, as in GLUS",
        "An expression's target is the union of all instances of its category. No published figures exist for it.",
    ),
)

_ALSO_CALLED = {
    "refdavis17": "davis17",
    "refdavis": "davis17",
    "referyoutubevos": "refyoutubevos",
    "refytvos": "refyoutubevos",
}


def protocol_for(dataset: str, split: str) -> Protocol:
    """The protocol for a split. For data of no benchmark (demo data, a training split): a plain mean, which says so."""
    plain = re.sub("[^a-z0-9]", "", dataset.lower())
    plain = _ALSO_CALLED.get(plain, plain)
    for protocol in PROTOCOLS:
        if protocol.dataset == plain and protocol.split in (None, split):
            return protocol
    average: Average = "referring-reasoning" if plain == "revos" else "expressions"
    return Protocol(f"{dataset} {split}", dataset, split, average, "not a published benchmark", official=False)
