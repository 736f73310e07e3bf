"""One micro-batch and a short video on a CUDA device that is not there: devices, host syncs, memory, FLOP, kernels.

May import `common`, `data_pipeline`, `model` and the rest of `training`. `glus plan --trace` prints what it finds.
"""
