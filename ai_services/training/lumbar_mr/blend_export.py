"""Writes feature grader and patch networks as one ONNX graph, ``features`` and ``patches`` to ``scores`` (stage 11).

One file and one hash stand for the whole grader: https://onnx.ai/onnx/api/compose.html.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper

from ai_services.pipelines.lumbar_mr.patch import CHANNELS, PATCH_SHAPE
from ai_services.training.lumbar_mr.export import OPSET, PARITY_TOLERANCE, ParityError, sha256
from ai_services.training.lumbar_mr.feature_export import IR_VERSION, OPSETS, export_feature_grader
from ai_services.training.lumbar_mr.feature_grader import FeatureGrader
from ai_services.training.lumbar_mr.patch_network import PatchEnsemble

NETWORK_SHARE = 0.4
EXAMPLE_DISCS = 7
_PREFIX = "patch_"


def blended(
    features: NDArray[np.float32], networks: NDArray[np.float32], share: float = NETWORK_SHARE
) -> NDArray[np.float32]:
    """Scores of both graders as one, shape (disc, 9)."""
    return ((1 - share) * features + share * networks).astype(np.float32)


def export_blend(
    grader: FeatureGrader,
    ensemble: PatchEnsemble,
    path: Path,
    features: NDArray[np.float32],
    patches: NDArray[np.float32],
) -> str:
    """Write the graph and compare it with both models on an example. Returns the file's SHA-256.

    Parameters
    ----------
    features, patches : shape (disc, feature) and (disc, 5, 96, 128), of at least one disc

    Raises
    ------
    ParityError
        Where a score differs by more than the tolerance.
    """
    parts = [path.with_suffix(".features.onnx"), path.with_suffix(".patches.onnx")]
    try:
        export_feature_grader(grader, parts[0], features)
        _export_networks(ensemble, parts[1], features.shape[1])
        onnx.save(_joined(onnx.load(str(parts[0])), onnx.load(str(parts[1]))), str(path))
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    _check(grader, ensemble, path, features, patches)
    return sha256(path)


def _export_networks(ensemble: PatchEnsemble, path: Path, width: int) -> None:
    # Random where constant would let the exporter fold the level away.
    example = (torch.rand(EXAMPLE_DISCS, len(CHANNELS), *PATCH_SHAPE), torch.rand(EXAMPLE_DISCS, width))
    torch.onnx.export(
        ensemble.eval(),
        example,
        str(path),
        input_names=["patches", "features"],
        output_names=["network_scores"],
        dynamic_axes={name: {0: "disc"} for name in ("patches", "features", "network_scores")},
        opset_version=OPSET,
        dynamo=False,
    )


def _joined(features: onnx.ModelProto, networks: onnx.ModelProto) -> onnx.ModelProto:
    """Both graphs side by side, then their weighted mean."""
    networks = compose.add_prefix(networks, _PREFIX)
    inner = networks.graph
    for node in inner.node:
        for index, name in enumerate(node.input):
            if name in (f"{_PREFIX}patches", f"{_PREFIX}features"):
                node.input[index] = name.removeprefix(_PREFIX)
    nodes = [_renamed(node, "scores", "feature_scores") for node in features.graph.node]
    shares = [
        numpy_helper.from_array(np.array([value], dtype=np.float32), name)
        for name, value in (("network_share", NETWORK_SHARE), ("feature_share", 1 - NETWORK_SHARE))
    ]
    graph = helper.make_graph(
        [*nodes, *inner.node, *_mean_nodes(f"{_PREFIX}network_scores")],
        "disc_patches_and_features_to_scores",
        [
            *features.graph.input,
            helper.make_tensor_value_info("patches", TensorProto.FLOAT, ["disc", len(CHANNELS), *PATCH_SHAPE]),
        ],
        list(features.graph.output),
        [*features.graph.initializer, *inner.initializer, *shares],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model


def _renamed(node: onnx.NodeProto, old: str, new: str) -> onnx.NodeProto:
    for index, name in enumerate(node.output):
        if name == old:
            node.output[index] = new
    return node


def _mean_nodes(networks: str) -> Sequence[onnx.NodeProto]:
    return (
        helper.make_node("Mul", ["feature_scores", "feature_share"], ["weighted_features"]),
        helper.make_node("Mul", [networks, "network_share"], ["weighted_networks"]),
        helper.make_node("Add", ["weighted_features", "weighted_networks"], ["scores"]),
    )


def _check(
    grader: FeatureGrader,
    ensemble: PatchEnsemble,
    path: Path,
    features: NDArray[np.float32],
    patches: NDArray[np.float32],
) -> None:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in {1, min(EXAMPLE_DISCS, len(features))}:
        own = features[:count], patches[:count].astype(np.float32)
        (found,) = session.run(None, {"features": own[0], "patches": own[1]})
        with torch.inference_mode():
            networks = ensemble(torch.from_numpy(own[1]), torch.from_numpy(own[0])).numpy()
        difference = float(np.abs(found - blended(grader.scores(own[0]), networks)).max())
        if not difference <= PARITY_TOLERANCE:
            raise ParityError(f"{path.name}: largest difference {difference:.2e} exceeds {PARITY_TOLERANCE:.0e}")
