"""Writes the feature grader as one ONNX graph, checked against the models it came from (stage 11).

TreeEnsembleRegressor: https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsembleRegressor.html. LightGBM sends a value
left where it is at most the threshold; a missing one goes where the split says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ai_services.training.lumbar_mr.export import PARITY_TOLERANCE, ParityError, sha256
from ai_services.training.lumbar_mr.feature_grader import LINEAR_SHARE, FeatureGrader, LinearGrader

OPSETS = (("", 17), ("ai.onnx.ml", 3))
IR_VERSION = 8


def export_feature_grader(grader: FeatureGrader, path: Path, example: NDArray[np.float32]) -> str:
    """Write ``features`` → ``scores`` and compare on an example, shape (disc, feature). Returns the file's SHA-256.

    Raises
    ------
    ParityError
        Where a score differs by more than the tolerance.
    """
    targets, width = len(grader.boosters), example.shape[1]
    nodes = [_tree_node(grader), *_linear_nodes(), *_blend_nodes()]
    graph = helper.make_graph(
        nodes,
        "disc_features_to_scores",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["disc", width])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["disc", targets])],
        [numpy_helper.from_array(value, name) for name, value in _constants(grader.linear).items()],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"features": example})
    difference = float(np.abs(found - grader.scores(example)).max())
    if difference > PARITY_TOLERANCE:
        raise ParityError(f"{path.name}: largest difference {difference:.2e} exceeds {PARITY_TOLERANCE:.0e}")
    return sha256(path)


def _tree_node(grader: FeatureGrader) -> onnx.NodeProto:
    columns: dict[str, list[Any]] = {
        name: []
        for name in (
            "nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_values", "nodes_modes",
            "nodes_truenodeids", "nodes_falsenodeids", "nodes_missing_value_tracks_true",
            "target_treeids", "target_nodeids", "target_ids", "target_weights",
        )
    }  # fmt: skip
    number = 0
    for target, boosters in enumerate(grader.boosters):
        for booster in boosters:
            for tree in booster.dump_model()["tree_info"]:
                _add_tree(columns, tree["tree_structure"], number, target, 1.0 / len(boosters))
                number += 1
    return helper.make_node(
        "TreeEnsembleRegressor",
        ["features"],
        ["trees"],
        domain="ai.onnx.ml",
        n_targets=len(grader.boosters),
        aggregate_function="SUM",
        post_transform="NONE",
        **columns,
    )


def _add_tree(columns: dict[str, list[Any]], root: dict[str, Any], tree: int, target: int, share: float) -> None:
    """Number the nodes breadth-first and append them."""
    queue = [root]
    numbered = 0
    while numbered < len(queue):
        node, own = queue[numbered], numbered
        numbered += 1
        leaf = "split_feature" not in node
        columns["nodes_treeids"].append(tree)
        columns["nodes_nodeids"].append(own)
        columns["nodes_featureids"].append(0 if leaf else int(node["split_feature"]))
        columns["nodes_values"].append(0.0 if leaf else _not_above(float(node["threshold"])))
        columns["nodes_modes"].append("LEAF" if leaf else "BRANCH_LEQ")
        columns["nodes_missing_value_tracks_true"].append(0 if leaf else int(_missing_goes_left(node)))
        if leaf:
            columns["nodes_truenodeids"].append(0)
            columns["nodes_falsenodeids"].append(0)
            columns["target_treeids"].append(tree)
            columns["target_nodeids"].append(own)
            columns["target_ids"].append(target)
            columns["target_weights"].append(float(node["leaf_value"]) * share)
        else:
            columns["nodes_truenodeids"].append(len(queue))
            columns["nodes_falsenodeids"].append(len(queue) + 1)
            queue += [node["left_child"], node["right_child"]]


def _missing_goes_left(node: dict[str, Any]) -> bool:
    """LightGBM's rule; without a missing value in training it reads NaN as zero."""
    return bool(node["default_left"]) if node["missing_type"] == "NaN" else float(node["threshold"]) >= 0


def _not_above(threshold: float) -> float:
    """The largest float32 not above a float64 threshold: then ``x <= t`` is the same question for float32 x."""
    single = np.float32(threshold)
    return float(single if float(single) <= threshold else np.nextafter(single, np.float32(-np.inf)))


def _constants(linear: LinearGrader) -> dict[str, NDArray[np.float32]]:
    return {
        "median": linear.median,
        "low": linear.low,
        "high": linear.high,
        "mean": linear.mean,
        "deviation": linear.deviation,
        "weights": linear.weights,
        "intercept": linear.intercept,
        "tree_share": np.array([1 - LINEAR_SHARE], dtype=np.float32),
        "linear_share": np.array([LINEAR_SHARE], dtype=np.float32),
    }


def _linear_nodes() -> list[onnx.NodeProto]:
    return [
        helper.make_node("IsNaN", ["features"], ["missing"]),
        helper.make_node("Where", ["missing", "median", "features"], ["filled"]),
        helper.make_node("Max", ["filled", "low"], ["raised"]),
        helper.make_node("Min", ["raised", "high"], ["clipped"]),
        helper.make_node("Sub", ["clipped", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "deviation"], ["standard"]),
        helper.make_node("MatMul", ["standard", "weights"], ["product"]),
        helper.make_node("Add", ["product", "intercept"], ["linear"]),
    ]


def _blend_nodes() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Mul", ["trees", "tree_share"], ["of_trees"]),
        helper.make_node("Mul", ["linear", "linear_share"], ["of_linear"]),
        helper.make_node("Add", ["of_trees", "of_linear"], ["scores"]),
    ]
