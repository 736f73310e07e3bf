"""`model.method` -> the class of its model: the one place where `model` learns of the method."""

from collections.abc import Mapping
from types import MappingProxyType

from glus.model.glus import Glus
from glus.model.model_config import Method
from glus.model.pretraining.pretraining_glus import PretrainingGlus
from glus.model.selector.selector import Selector
from glus.model.videolisa.video_lisa import VideoLisa

#: A model of any method.
AnyModel = Glus | VideoLisa | Selector | PretrainingGlus

METHODS: Mapping[Method, type[AnyModel]] = MappingProxyType(
    {"glus": Glus, "videolisa": VideoLisa, "selector": Selector, "pretraining": PretrainingGlus}
)


def model_class(method: Method) -> type[AnyModel]:
    """The class of a method's model; all are made of (config, vocab_size, seg_id)."""
    return METHODS[method]
