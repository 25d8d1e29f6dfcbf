"""From a trained run, or an ONNX file made elsewhere, to a signed candidate package (stage 11, ADR 0050).

`package` puts it together, `trained_weights` exports the run's network, `foreign_adapter` takes in what others trained,
`contract` is what weights of a role must look like, `documents` writes the model card and the release checklist.
"""
