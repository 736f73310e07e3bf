"""GLUS: language model, vision tower, SAM 2 segmenter, losses. Knows nothing of the data pipeline."""
