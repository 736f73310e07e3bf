"""The synthetic world: its objects, expressions and twins, drawn into the released layouts (`glus demo-data`).

Imports `common` and `data_pipeline`.
"""
