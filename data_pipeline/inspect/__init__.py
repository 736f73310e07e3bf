"""`glus data`: statistics of shards and pictures of what the trainer sees.

Imports every room of the data pipeline.
"""
