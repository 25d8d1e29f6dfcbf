"""Search of hyper-parameters: trials of a recipe whose open elements are a space, written as data (stage 11, ADR 0052).

`space` reads the space, `study` runs, prunes and resumes trials; each trial is a training run of its own.
"""
