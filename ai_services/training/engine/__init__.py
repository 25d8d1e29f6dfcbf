"""Trains networks from a recipe: one process or many, resumed after a kill with the same numbers (stage 11).

`recipe` is what a run is told, `self_configuration` what the data decides, `tasks` what is learnt (`outlines` of `data`
or grades of `disc_samples`), `architectures` what it works with, `parallel` and `pipeline_stages` how processes share
it, `checkpoint` what survives, `loop` the steps. ADR 0050. Beside it: `tracking`, `search` and `packaging`.
"""
