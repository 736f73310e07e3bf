"""Raw RefVOS datasets -> video records -> WebDataset shards -> batches. Knows nothing of the model."""
