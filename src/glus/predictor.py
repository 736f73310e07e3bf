"""The front door from Python: `from glus.predictor import GlusPredictor`."""

from glus.evaluation.segment.predictor import FrameResult, GlusPredictor, VideoResult

__all__ = ["FrameResult", "GlusPredictor", "VideoResult"]
