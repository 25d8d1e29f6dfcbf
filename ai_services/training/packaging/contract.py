"""What the weights of a role must look like, read from the package that they would take a place in (stage 11).

https://onnx.ai/onnx/repo-docs/IR.html. What fits runs in the pipeline; whether it is any good is for the evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from ai_services.models.registry import PackageError

Shape = tuple[int | None, ...]
_FLOAT = "tensor(float)"
_PROBES = ((320, 256), (352, 272))
"""Rows and columns that a segmentation is tried on: the pipeline pads slices to multiples of 16."""


@dataclass(frozen=True, slots=True)
class Contract:
    """Inputs and outputs by name; None stands for a free size."""

    inputs: dict[str, Shape]
    outputs: dict[str, Shape]


def contract_of(path: Path) -> Contract:
    """Inputs and outputs of an ONNX file.

    Raises
    ------
    PackageError
        ONNX Runtime cannot open it, or an input or output is not float32.
    """
    session = open_model(path)
    for value in (*session.get_inputs(), *session.get_outputs()):
        if value.type != _FLOAT:
            raise PackageError(f"{value.name} is {value.type}; float32 is needed")
    return Contract(
        {value.name: _shape(value.shape) for value in session.get_inputs()},
        {value.name: _shape(value.shape) for value in session.get_outputs()},
    )


def open_model(path: Path) -> onnxruntime.InferenceSession:
    """Open a model; PackageError where ONNX Runtime refuses it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as exc:
        # onnxruntime raises classes of its own for each reason, with no common one below Exception.
        raise PackageError("the weights are no ONNX model that ONNX Runtime can open here") from exc


def check_fits(path: Path, wanted: Contract) -> None:
    """Refuse weights whose inputs and outputs are not those of the role.

    Raises
    ------
    PackageError
        A name, a number of dimensions, or a fixed size differs; or the answer to an image has not its size.
    """
    found = contract_of(path)
    for word, have, want in (("input", found.inputs, wanted.inputs), ("output", found.outputs, wanted.outputs)):
        if set(have) != set(want):
            raise PackageError(f"{word}s are {_names(have)}; the pipeline uses {_names(want)}")
        for name, shape in want.items():
            if len(have[name]) != len(shape):
                raise PackageError(f"{word} {name} has {len(have[name])} dimensions; the pipeline uses {len(shape)}")
            for size, needed in zip(have[name], shape, strict=True):
                if needed is None and size is not None:
                    raise PackageError(f"{word} {name} has a fixed size where the pipeline gives any: {_told(have)}")
                if None not in (size, needed) and size != needed:
                    raise PackageError(f"{word} {name} is {_told(have)}; the pipeline uses {_told(want)}")
    if "image" in wanted.inputs:
        _try_images(path)


def _try_images(path: Path) -> None:
    session = open_model(path)
    (output,) = (value.name for value in session.get_outputs())
    for rows, columns in _PROBES:
        image = np.random.default_rng(rows).standard_normal((1, 1, rows, columns)).astype(np.float32)
        try:
            (scores,) = session.run([output], {"image": image})
        except Exception as exc:
            raise PackageError(f"the network cannot compute an image of {rows} by {columns}") from exc
        if scores.shape[2:] != (rows, columns) or not np.isfinite(scores).all():
            raise PackageError(f"the answer to an image of {rows} by {columns} is not a finite score for each pixel")


def _shape(shape: list[int | str | None]) -> Shape:
    return tuple(size if isinstance(size, int) else None for size in shape)


def _names(values: dict[str, Shape]) -> str:
    return ", ".join(sorted(values))


def _told(values: dict[str, Shape]) -> str:
    return "; ".join(
        f"{name} ({', '.join('any' if size is None else str(size) for size in shape)})"
        for name, shape in sorted(values.items())
    )
