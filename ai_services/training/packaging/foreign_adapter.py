"""Takes in an ONNX file that was made elsewhere, as by tf2onnx from TensorFlow, in the form that the pipeline uses.

Checked: size, operators of the standard alone, opset, one file, inputs and outputs. Adapted, by nodes around the graph:
names, channels last, probabilities instead of scores. https://onnx.ai/onnx/repo-docs/Versioning.html, ADR 0050.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, TensorProto, checker, compose, helper
from onnx.checker import ValidationError

from ai_services.models.registry import PackageError
from ai_services.training.packaging.package import Adaptation

OLDEST_OPSET, NEWEST_OPSET = 11, 23
LARGEST_BYTES = 1 << 30
_CHANNELS_FIRST, _CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
_CLASSES = 4
_STANDARD = ("", "ai.onnx", "ai.onnx.ml")
_SMALLEST = 1e-7


def adapted_weights(source: Path, target: Path, how: Adaptation) -> dict[str, Any]:
    """Write the file as weights of a segmentation: input ``image``, output ``scores``.

    Returns
    -------
    what the manifest says of it: SHA-256 of the source, its producer, opset and adaptations

    Raises
    ------
    PackageError
        It is not one file of standard operators with one image in and one score per class and pixel out.
    """
    model = _read(source)
    opset = _opset(model)
    graph = model.graph
    given = {item.name for item in graph.initializer}
    inputs = [item for item in graph.input if item.name not in given]
    for word, values in (("input", inputs), ("output", list(graph.output))):
        if len(values) != 1:
            raise PackageError(f"the model has {len(values)} {word}s; a segmentation has one")
    channel = 3 if how.channels_last else 1
    _check_value("input", inputs[0], 1, channel)
    _check_value("output", graph.output[0], _CLASSES, channel)
    source_name, answer_name = inputs[0].name, graph.output[0].name
    model = compose.add_prefix(model, "given/")
    _rewire(model.graph, f"given/{source_name}", f"given/{answer_name}", how)
    try:
        checker.check_model(model, full_check=True)
    except (ValidationError, onnx.shape_inference.InferenceError) as exc:
        raise PackageError("the model is not valid once it is adapted: look at its layout of channels") from exc
    target.write_bytes(model.SerializeToString())
    return {
        "source": hashlib.sha256(source.read_bytes()).hexdigest(),
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "opset": opset,
        "channels_last": how.channels_last,
        "probabilities": how.probabilities,
    }


def _read(source: Path) -> ModelProto:
    try:
        if source.stat().st_size > LARGEST_BYTES:
            raise PackageError(f"the model is larger than {LARGEST_BYTES >> 20} MiB")
        model = onnx.load(str(source), load_external_data=False)
        if not model.graph.node:
            raise PackageError("the file holds no ONNX model")
        external = any(item.data_location == TensorProto.EXTERNAL for item in _tensors(model))
    except OSError as exc:
        raise PackageError("the model cannot be read") from exc
    except PackageError:
        raise
    except Exception as exc:
        # protobuf raises its own class, which the two implementations of protobuf name differently.
        raise PackageError("the file holds no ONNX model") from exc
    if external:
        raise PackageError("weights lie in other files; save the model as one file")
    return model


def _opset(model: ModelProto) -> int:
    foreign = sorted({item.domain for item in model.opset_import if item.domain not in _STANDARD})
    used = sorted({node.domain for node in model.graph.node if node.domain not in _STANDARD})
    if used:
        raise PackageError(f"operators of {', '.join(used)} are not part of the standard and are not run here")
    for domain in foreign:  # declared and never used: nothing to run
        kept = [item for item in model.opset_import if item.domain != domain]
        del model.opset_import[:]
        model.opset_import.extend(kept)
    versions = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
    if len(versions) != 1 or not OLDEST_OPSET <= versions[0] <= NEWEST_OPSET:
        found = ", ".join(map(str, versions)) or "none"
        raise PackageError(f"opset is {found}; from {OLDEST_OPSET} to {NEWEST_OPSET} is run here: convert it anew")
    return int(versions[0])


def _check_value(word: str, value: Any, size: int, channel: int) -> None:
    kind = value.type.tensor_type
    if kind.elem_type != TensorProto.FLOAT:
        raise PackageError(f"the {word} is {helper.tensor_dtype_to_string(kind.elem_type)}; float32 is needed")
    shape = [item.dim_value if item.HasField("dim_value") else None for item in kind.shape.dim]
    told = f"({', '.join('any' if item is None else str(item) for item in shape)})"
    if len(shape) != 4:
        raise PackageError(f"the {word} is {told}; slices, channel, rows and columns are needed")
    if shape[channel] != size and shape[3 if channel == 1 else 1] == size:
        raise PackageError(f"the {word} is {told}; the channels seem to be the other way round (--channels-last)")
    if shape[channel] not in (size, None):
        raise PackageError(f"the {word} is {told}; {size} channels are needed at place {channel + 1}")
    fixed = [item for place, item in enumerate(shape) if place not in (0, channel) and item is not None]
    if fixed or shape[0] not in (None, 1):
        raise PackageError(f"the {word} is {told}; rows and columns have to be free")


def _rewire(graph: Any, source: str, answer: str, how: Adaptation) -> None:
    """Put the nodes between the pipeline's names and those of the graph."""
    before = [_node("image", source, _CHANNELS_LAST if how.channels_last else None)]
    after, last = [], answer
    if how.probabilities:
        # The pipeline takes a softmax: of the logarithms of probabilities it gives the probabilities back.
        floor = helper.make_tensor("foramen/smallest", TensorProto.FLOAT, [], [_SMALLEST])
        graph.initializer.append(floor)
        after.append(helper.make_node("Max", [last, floor.name], ["foramen/positive"]))
        after.append(helper.make_node("Log", ["foramen/positive"], ["foramen/log"]))
        last = "foramen/log"
    after.append(_node(last, "scores", _CHANNELS_FIRST if how.channels_last else None))
    nodes = [*before, *graph.node, *after]
    kept = {item.name for item in graph.initializer}
    rest = [item for item in graph.input if item.name in kept]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    free: Callable[[str, int], Any] = lambda name, channels: helper.make_tensor_value_info(  # noqa: E731
        name, TensorProto.FLOAT, ["slice", channels, "row", "column"]
    )
    graph.input.extend([free("image", 1), *rest])
    graph.output.extend([free("scores", _CLASSES)])


def _node(source: str, target: str, order: tuple[int, ...] | None) -> Any:
    if order is None:
        return helper.make_node("Identity", [source], [target])
    return helper.make_node("Transpose", [source], [target], perm=order)


def _tensors(model: ModelProto) -> list[Any]:
    constants = [attribute.t for node in model.graph.node for attribute in node.attribute if attribute.HasField("t")]
    return [*model.graph.initializer, *constants]
