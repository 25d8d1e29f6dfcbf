"""A trained grader joins the grader of the base package in one ONNX graph, as its grading weights (stage 11).

A handful of corrections makes no grader by itself, so the candidate's scores are the base's, moved by a share towards
those of the new network. What the new one does not score (Modic, spondylolisthesis) stays the base's.
https://onnx.ai/onnx/api/compose.html
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, compose, helper, numpy_helper
from torch import Tensor, nn

from ai_services.models.registry import PackageError
from ai_services.pipelines.lumbar_mr.patch import CHANNELS, PATCH_SHAPE
from ai_services.training.disc_table import LOOKED_AT, SCORES
from ai_services.training.lumbar_mr.export import OPSET, PARITY_TOLERANCE, ParityError
from ai_services.training.lumbar_mr.patch_network import affine, grids, sample

SHARE = 0.25
"""Of the new network in the first seven scores (POLICY): small, as its calibration is that of the base."""
_BASE, _NEW = "base_", "new_"
_EXAMPLE_DISCS = 6


class OnPatches(nn.Module):  # type: ignore[misc]
    """A grader as the pipeline asks: all discs of one spine, from the lowest up, as patches with T1's channel."""

    def __init__(self, network: nn.Module, *, together: bool) -> None:
        super().__init__()
        self.network, self.together = network, together
        self.register_buffer("view", grids(affine(1)))

    def forward(self, patches: Tensor) -> Tensor:
        """Scores, shape (disc, 7), of patches, shape (disc, 5, 96, 128)."""
        channels = torch.cat([patches[:, number : number + 1] for number in LOOKED_AT], dim=1)
        seen = sample(channels, self.view.expand(patches.shape[0], -1, -1, -1))
        scores: Tensor = self.network(seen[None])[0] if self.together else self.network(seen)
        return scores


def export_grader(network: nn.Module, base: Path, path: Path, *, together: bool, share: float = SHARE) -> None:
    """Write the joined grader.

    Parameters
    ----------
    network : trained, of single discs or, where `together`, of the discs of a spine
    base : grading weights of the base package, ``features`` and ``patches`` to ``scores``
    path : of the new weights

    Raises
    ------
    PackageError
        The base's grader takes no patches: it is of a version before 0.3.
    ParityError
        ONNX Runtime's answer is not the one that both give.
    """
    wrapped = OnPatches(network.eval(), together=together).eval()
    part = path.with_suffix(".new.onnx")
    try:
        torch.onnx.export(
            wrapped,
            (torch.rand(_EXAMPLE_DISCS, len(CHANNELS), *PATCH_SHAPE),),
            str(part),
            input_names=["patches"],
            output_names=["network_scores"],
            dynamic_axes={name: {0: "disc"} for name in ("patches", "network_scores")},
            opset_version=OPSET,
            dynamo=False,
        )
        onnx.save(joined(onnx.load(str(base)), onnx.load(str(part)), share), str(path))
    finally:
        part.unlink(missing_ok=True)
    _check(wrapped, base, path, share)


def joined(base: onnx.ModelProto, new: onnx.ModelProto, share: float) -> onnx.ModelProto:
    """Both graphs on the same patches, their first seven scores averaged."""
    if {item.name for item in base.graph.input} != {"features", "patches"}:
        raise PackageError("the base's grader takes no patches; name a package of version 0.3 or later (--base)")
    inputs = list(base.graph.input)
    # A graph that joins the base a second time must not meet the names of the first.
    number = sum(1 for item in base.graph.initializer if item.name.endswith("joined_share"))
    parts = [compose.add_prefix(base, f"{_BASE}{number}_"), compose.add_prefix(new, f"{_NEW}{number}_")]
    for part in parts:
        for node in part.graph.node:
            for place, name in enumerate(node.input):
                for given in ("features", "patches"):
                    if name in (f"{_BASE}{number}_{given}", f"{_NEW}{number}_{given}"):
                        node.input[place] = given
    old_scores, new_scores = f"{_BASE}{number}_scores", f"{_NEW}{number}_network_scores"
    constants = {
        "joined_share": np.array([share], dtype=np.float32),
        "joined_rest": np.array([1 - share], dtype=np.float32),
        "joined_from": np.array([0], dtype=np.int64),
        "joined_cut": np.array([SCORES], dtype=np.int64),
        "joined_end": np.array([2**31 - 1], dtype=np.int64),
        "joined_axis": np.array([1], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Slice", [old_scores, "joined_from", "joined_cut", "joined_axis"], ["joined_old"]),
        helper.make_node("Slice", [old_scores, "joined_cut", "joined_end", "joined_axis"], ["joined_kept"]),
        helper.make_node("Mul", ["joined_old", "joined_rest"], ["joined_old_part"]),
        helper.make_node("Mul", [new_scores, "joined_share"], ["joined_new_part"]),
        helper.make_node("Add", ["joined_old_part", "joined_new_part"], ["joined_moved"]),
        helper.make_node("Concat", ["joined_moved", "joined_kept"], ["scores"], axis=1),
    ]
    graph = helper.make_graph(
        [node for part in parts for node in part.graph.node] + nodes,
        "base_and_new_grader",
        inputs,
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["disc", _outputs(base)])],
        [item for part in parts for item in part.graph.initializer]
        + [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = {item.domain: item.version for part in (new, base) for item in part.opset_import}
    for item in new.opset_import:
        opsets[item.domain] = max(opsets[item.domain], item.version)
    imports = [helper.make_opsetid(domain, version) for domain, version in sorted(opsets.items())]
    model = helper.make_model(graph, opset_imports=imports, ir_version=base.ir_version)
    onnx.checker.check_model(model)
    return model


def _outputs(base: onnx.ModelProto) -> int:
    (output,) = base.graph.output
    return int(output.type.tensor_type.shape.dim[1].dim_value)


def _check(wrapped: OnPatches, base: Path, path: Path, share: float) -> None:
    sessions = [onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]) for file in (base, path)]
    width = next(item.shape[1] for item in sessions[0].get_inputs() if item.name == "features")
    generator = np.random.default_rng(1)
    for discs in (1, _EXAMPLE_DISCS):
        patches = generator.random((discs, len(CHANNELS), *PATCH_SHAPE), dtype=np.float32)
        given = {"features": generator.random((discs, width), dtype=np.float32), "patches": patches}
        old, found = (session.run(None, given)[0] for session in sessions)
        with torch.inference_mode():
            new = wrapped(torch.from_numpy(patches)).numpy()
        expected = np.concatenate([(1 - share) * old[:, :SCORES] + share * new, old[:, SCORES:]], axis=1)
        difference = float(np.abs(found - expected).max())
        if not difference <= PARITY_TOLERANCE:
            raise ParityError(f"{path.name}: largest difference {difference:.2e} exceeds {PARITY_TOLERANCE:.0e}")
