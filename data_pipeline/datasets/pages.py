"""The official page of each dataset, where its files and its licence are. Nothing of it is downloaded by this code."""

from collections.abc import Mapping
from types import MappingProxyType

_REFER = "https://github.com/lichengunc/refer"
PAGES: Mapping[str, str] = MappingProxyType(
    {
        "mevis": "https://github.com/henghuiding/MeViS",
        "refer_youtube_vos": "https://youtube-vos.org/dataset/rvos/",
        "ref_davis17": "https://davischallenge.org/davis2017/code.html",
        "revos": "https://github.com/cilinyan/ReVOS-api",
        "lv_vis": "https://github.com/haochenheheda/LVVIS",
        "reason_vos": "https://github.com/showlab/VideoLISA",
        "youtube_vos": "https://youtube-vos.org/dataset/vos/",
        "reason_seg": "https://github.com/dvlab-research/LISA",
        **dict.fromkeys(("refcoco", "refcoco_plus", "refcocog", "refclef"), _REFER),
        "grefcoco": "https://github.com/henghuiding/gRefCOCO",
        "ade20k": "https://groups.csail.mit.edu/vision/datasets/ADE20K/",
        "coco_stuff": "https://github.com/nightrome/cocostuff",
        "paco_lvis": "https://github.com/facebookresearch/paco",
        "pascal_part": "https://github.com/facebookresearch/VLPart",
    }
)
