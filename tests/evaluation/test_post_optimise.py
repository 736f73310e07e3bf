"""What `inference.post_optimise` refuses, and what predictions.json records of it."""

import hashlib
from pathlib import Path

import pytest

from glus.common.errors import EvaluationError, ModelError
from glus.data_pipeline.sampling.sample_plan import SamplingConfig
from glus.evaluation.predict.asking import ASKING
from glus.evaluation.predict.inference_config import InferenceConfig
from glus.training.pretrained import open_propagation
from tests.model.releases import write_sam2


def test_glus_refuses_it_and_videolisa_records_its_digest(tmp_path):
    (tmp_path / "sam2.pt").write_bytes(b"weights")
    config = InferenceConfig(post_optimise=tmp_path / "sam2.pt", precision="fp32")
    with pytest.raises(EvaluationError, match="GLUS follows masks by a memory of its own; leave it out"):
        ASKING["glus"].recorded(config, SamplingConfig())
    recorded = ASKING["videolisa"].recorded(config, SamplingConfig())
    assert recorded["post_optimise"] == hashlib.sha256(b"weights").hexdigest()
    assert "post_optimise" not in ASKING["videolisa"].recorded(InferenceConfig(precision="fp32"), SamplingConfig())
    with pytest.raises(EvaluationError, match=r"inference.post_optimise: .*absent.pt"):
        ASKING["videolisa"].recorded(
            InferenceConfig(post_optimise=Path("absent.pt"), precision="fp32"), SamplingConfig()
        )


def test_a_sam_2_1_is_refused(tmp_path):
    write_sam2(tmp_path / "newer.pt", newer=True)
    with pytest.raises(ModelError, match=r"is a SAM 2.1, which this code cannot follow masks with"):
        open_propagation(tmp_path / "newer.pt")
