"""The key frame selector (KFS): references, a target frame, and one score that says how well GLUS does from there.

Imports `common` and `model`.
"""
