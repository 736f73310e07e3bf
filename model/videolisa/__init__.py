"""VideoLISA: sparse and dense frames, one [SEG] for all of them, frames segmented each alone.

Imports `common` and `model`.
"""
