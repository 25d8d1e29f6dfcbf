"""What a training run was and how it went: its record, curves on a page, and MLflow beside them (stage 11, ADR 0052).

`run_record` is written by the run itself and decides; `curves` draws it; `mlflow_store` repeats it to a tracking server
and may fail without the run noticing more than a warning.
"""
