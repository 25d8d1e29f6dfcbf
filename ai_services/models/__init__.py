"""Which pipelines and model versions exist, which one speaks for a study, and proof that weights are the released ones.

`registry` reads packages, `release` signs and checks them, `stages` and `routing` are the rules, `versions` keeps them
in PostgreSQL (schema `ai`), `comparison` sets a shadow beside what was released, `recall` finds what a version wrote
(stages 4 and 11). ADR 0049.
"""
