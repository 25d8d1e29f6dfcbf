"""Measures a pipeline on labelled patients: figures with intervals, subgroups, pictures, one report (stage 11).

`folder` reads the labelled data, `lumbar_mr` runs the pipeline on it, `overlap` and `grading` are the metrics,
`figures` the intervals, `report` puts them together, `page` draws them. Choice of metrics: Metrics Reloaded,
https://doi.org/10.1038/s41592-023-02151-z.
"""
