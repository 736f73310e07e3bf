"""A model and shards -> masks on disk; work shared over ranks, each mask written once.

Imports `training` for checkpoints.
"""
