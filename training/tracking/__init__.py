"""MLflow: runs, metrics, logged models, delivered from a thread.

Imports `common`; only `tracking.py` imports MLflow.
"""
