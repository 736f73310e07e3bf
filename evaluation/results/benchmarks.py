"""The benchmarks: which split each one scores, how its metrics are averaged, and where that is written down."""

from dataclasses import dataclass, replace
from typing import Literal

from glus.data_pipeline.datasets.table import DATASETS, holds_images

Average = Literal["expressions", "referring-reasoning", "annotators"]
"""How the metrics of a benchmark come from those of its expressions.

expressions: the mean over all expressions.
annotators: the mean over objects for each annotator, then over the annotators.
referring-reasoning: the mean over referring expressions, the mean over reasoning ones, and the unweighted mean of both.
"""


@dataclass(frozen=True)
class Protocol:
    """How one benchmark is scored. In all of them J and F of an expression are means over all its frames, the first and
    the last too.

    `dataset` is its name in data_pipeline/datasets/table.py. `split` is None where every split with masks is scored
    alike; its name then follows the benchmark's. `official` is False where no published result is computed so.
    """

    name: str
    dataset: str
    split: str | None
    average: Average
    source: str
    note: str = ""
    official: bool = True

    @property
    def overlap(self) -> bool:
        """Whether it is of images, whose measures are gIoU and cIoU."""
        return self.dataset in DATASETS and holds_images(self.dataset)


def _referring_images(name: str, dataset: str, source: str) -> Protocol:
    """refCOCO and its kin: every sentence of every split is one expression."""
    return Protocol(name, dataset, None, "expressions", f"{source}; {_LISA}", _OVERLAP)


_LISA = "averaged as by LISA, Lai et al., CVPR 2024; github.com/dvlab-research/LISA, train_ds.py"
_OVERLAP = "gIoU is the mean of IoU over expressions, cIoU intersections summed over unions summed."

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
        "MeViS valid",
        "mevis",
        "valid",
        "expressions",
        "Ding et al., MeViS, ICCV 2023",
        "The masks are held by the benchmark's server: nothing is scored here.",
    ),
    Protocol(
        "Ref-DAVIS17 valid",
        "ref_davis17",
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
        "ReasonVOS valid",
        "reason_vos",
        "valid",
        "expressions",
        "Bai et al., VideoLISA, NeurIPS 2024; github.com/showlab/VideoLISA, evaluation/reason_vos/eval_reason_vos.py",
    ),
    Protocol(
        "Refer-YouTube-VOS",
        "refer_youtube_vos",
        None,
        "expressions",
        "Seo et al., URVOS, ECCV 2020",
        "The masks of valid are held by the benchmark's server: only splits with masks are scored here.",
    ),
    Protocol(
        "LV-VIS",
        "lv_vis",
        None,
        "expressions",
        "Wang et al., LV-VIS, ICCV 2023; expressions are category names, as in GLUS",
        "An expression's target is the union of all instances of its category. No published metrics exist for it.",
        official=False,
    ),
    *(
        Protocol(
            f"ReasonSeg {split}",
            "reason_seg",
            split,
            "expressions",
            "Lai et al., LISA, CVPR 2024; github.com/dvlab-research/LISA, utils/dataset.py and train_ds.py",
            f'{_OVERLAP} "ignore" pixels leave both masks. Every text of an image counts; LISA takes the first.',
        )
        for split in ("val", "test")
    ),
    _referring_images("refCOCO", "refcoco", "Yu et al., ECCV 2016"),
    _referring_images("refCOCO+", "refcoco_plus", "Yu et al., ECCV 2016"),
    _referring_images("refCOCOg", "refcocog", "Mao et al., CVPR 2016, splits of UMD"),
    _referring_images("refCLEF", "refclef", "Kazemzadeh et al., EMNLP 2014"),
    _referring_images("gRefCOCO", "grefcoco", "Liu et al., GRES, CVPR 2023"),
    *(
        Protocol(name, dataset, None, "expressions", source, _OVERLAP, official=False)
        for name, dataset, source in (
            ("ADE20K", "ade20k", "Zhou et al., CVPR 2017; expressions are class names, as in LISA"),
            ("COCO-Stuff", "coco_stuff", "Caesar et al., CVPR 2018; expressions are class names, as in LISA"),
            ("PACO-LVIS", "paco_lvis", "Ramanathan et al., CVPR 2023; expressions are names, as in LISA"),
            ("PASCAL-Part", "pascal_part", "Chen et al., CVPR 2014; expressions are names, as in LISA"),
        )
    ),
    Protocol(
        "Demo twins valid",
        "demo_twins",
        "valid",
        "expressions",
        "the demo's synthetic videos of look-alike objects (docs/demo.md)",
        "Synthetic: it compares trainings of small models, and says nothing of real video.",
        official=False,
    ),
    Protocol(
        "YouTube-VOS categories",
        "youtube_vos",
        None,
        "expressions",
        "Xu et al., YouTube-VOS, ECCV 2018; expressions are category names, as VideoLISA trains on them",
        "An expression's target is the union of all objects of its category. No published metrics exist for it.",
        official=False,
    ),
)


MERGED = Protocol(
    "Ref-DAVIS17 valid, four annotators merged",
    "ref_davis17",
    "valid",
    "annotators",
    "Wu et al., ReferFormer, CVPR 2022; github.com/wjn922/ReferFormer, inference_davis.py and eval_davis.py; "
    "github.com/davisvideochallenge/davis2017-evaluation, davis2017/evaluation.py",
    "The masks of one annotator's expressions are merged into one label map a frame; labels are assigned to objects by "
    "the highest J&F, as the official code does for its unsupervised task. All frames count.",
)
"""The second way to score Ref-DAVIS17 (merged.py)."""


def protocol_for(dataset: str, split: str) -> Protocol:
    """The protocol for a split. For data of no benchmark (a training split): a plain mean, which says so."""
    for protocol in PROTOCOLS:
        if protocol.dataset == dataset and protocol.split == split:
            return protocol
        if protocol.dataset == dataset and protocol.split is None:
            return replace(protocol, name=f"{protocol.name} {split}", split=split)
    average: Average = "referring-reasoning" if dataset == "revos" else "expressions"
    return Protocol(f"{dataset} {split}", dataset, split, average, "not a published benchmark", official=False)
