"""Exports a trained network to ONNX and proves that ONNX Runtime gives the same numbers (stage 11).

Reference: https://docs.pytorch.org/docs/stable/onnx.html; tolerance 1e-3 on the scores.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from ai_services.pipelines.lumbar_mr.crop import CROP_SHAPE, SCALARS

PARITY_TOLERANCE = 1e-3
OPSET = 17


class ParityError(Exception):
    """The exported network's answers differ from the trained one's."""


def export_segmentation(network: nn.Module, path: Path) -> str:
    """Write the segmentation network; rows and columns are free multiples of 16. Returns its SHA-256."""
    example = torch.rand(1, 1, 320, 256)
    axes = {"image": {0: "slice", 2: "row", 3: "column"}, "scores": {0: "slice", 2: "row", 3: "column"}}
    _export(network, (example,), path, ["image"], ["scores"], axes)
    for shape in ((1, 1, 320, 256), (1, 1, 352, 272)):
        _check(network, {"image": torch.rand(*shape)}, path)
    return sha256(path)


def export_grading(network: nn.Module, path: Path) -> str:
    """Write the grading ensemble; the number of discs is free. Returns its SHA-256."""
    example = (torch.rand(2, 3, *CROP_SHAPE), torch.rand(2, len(SCALARS)))
    axes = {"crop": {0: "disc"}, "scalars": {0: "disc"}, "scores": {0: "disc"}}
    _export(network, example, path, ["crop", "scalars"], ["scores"], axes)
    for discs in (1, 7):
        _check(network, {"crop": torch.rand(discs, 3, *CROP_SHAPE), "scalars": torch.rand(discs, len(SCALARS))}, path)
    return sha256(path)


def sha256(path: Path) -> str:
    """Hash that the manifest releases."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _export(
    network: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    inputs: list[str],
    outputs: list[str],
    axes: dict[str, dict[int, str]],
) -> None:
    network.eval()
    torch.onnx.export(
        network,
        example,
        str(path),
        input_names=inputs,
        output_names=outputs,
        dynamic_axes=axes,
        opset_version=OPSET,
        dynamo=False,
    )


def _check(network: nn.Module, inputs: dict[str, Tensor], path: Path) -> None:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    with torch.inference_mode():
        expected = network(*inputs.values()).numpy()
    difference = float(np.abs(found - expected).max())
    if difference > PARITY_TOLERANCE:
        raise ParityError(f"{path.name}: largest difference {difference:.2e} exceeds {PARITY_TOLERANCE:.0e}")
