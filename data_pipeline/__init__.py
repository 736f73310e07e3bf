"""Raw RefVOS datasets -> video records -> WebDataset shards -> batches.

Imports `common` only: nothing here knows the model.
"""
