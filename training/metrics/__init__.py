"""What a step takes: time, tokens, memory, FLOP, load of the nodes.

Imports `model`.
"""
