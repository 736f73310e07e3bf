"""Stages that stand in for released weights: GLUS with losses for what CLIP, LLaVA and SAM 2 bring.

May import `common` and the rest of `model`; GLUS itself knows nothing of it.
"""
