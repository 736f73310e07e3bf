"""Metrics of a run: OUT/metrics.jsonl first, then MLflow, with its runs, artifacts and logged models.

Imports `common`, the run config, the sample plan and checkpoints. `mlflow_client.py` alone imports MLflow.
"""
