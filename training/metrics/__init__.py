"""What a step takes: time, tokens, memory, FLOP, load of the nodes.

Imports `model`, batches, and the ranks and devices of `training`.
"""
