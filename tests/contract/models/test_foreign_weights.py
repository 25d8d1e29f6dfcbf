"""An ONNX model made elsewhere becomes a candidate, or is refused in words: layout, opset, operators, sizes, files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from typer.testing import CliRunner

from ai_services.models.registry import read_package
from foramen.cli import app

pytestmark = pytest.mark.training


def tensorflow_like(
    path: Path, *, opset: int = 17, domain: str = "", rows: Any = None, channels_last: bool = True
) -> Path:
    """A model as tf2onnx writes one: channels last, transposed around each convolution, probabilities out."""
    from onnx import TensorProto, helper

    weights = np.random.default_rng(1).standard_normal((4, 1, 3, 3)).astype(np.float32)
    convolution = helper.make_node("Conv", ["in", "w"], ["out"], pads=[1, 1, 1, 1], kernel_shape=[3, 3], domain=domain)
    if channels_last:
        nodes = [helper.make_node("Transpose", ["input_1:0"], ["in"], perm=[0, 3, 1, 2]), convolution]
        nodes += [helper.make_node("Transpose", ["out"], ["last"], perm=[0, 2, 3, 1])]
        nodes += [helper.make_node("Softmax", ["last"], ["Identity:0"], axis=-1)]
        shapes = (["n", rows, "c", 1], ["n", rows, "c", 4])
    else:
        nodes = [helper.make_node("Identity", ["input_1:0"], ["in"]), convolution]
        nodes += [helper.make_node("Identity", ["out"], ["Identity:0"])]
        shapes = (["n", 1, rows, "c"], ["n", 4, rows, "c"])
    graph = helper.make_graph(
        nodes,
        "tf2onnx",
        [helper.make_tensor_value_info("input_1:0", TensorProto.FLOAT, shapes[0])],
        [helper.make_tensor_value_info("Identity:0", TensorProto.FLOAT, shapes[1])],
        [helper.make_tensor("w", TensorProto.FLOAT, weights.shape, weights.tobytes(), raw=True)],
    )
    imports = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(
        graph, producer_name="tf2onnx", producer_version="1.16", opset_imports=imports, ir_version=8
    )
    path.write_bytes(model.SerializeToString())
    return path


def package(model: Path, out: Path, *options: str) -> Any:
    arguments = ["model", "package", str(model), str(out), "--version", "9.9.0", "--by", "dr-li", *options]
    return CliRunner().invoke(app, arguments)


SAID = ("--trained-on", "SYNTHETIC", "--licence", "none")


def test_a_tensorflow_model_answers_in_the_pipeline_as_it_did_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORAMEN_HOME", str(tmp_path / "home"))
    model = tensorflow_like(tmp_path / "model.onnx")
    done = package(model, tmp_path / "package", "--channels-last", "--probabilities", *SAID)
    assert done.exit_code == 0, (done.output, done.exception)
    made = read_package(tmp_path / "package")
    image = np.random.default_rng(2).standard_normal((2, 1, 48, 32)).astype(np.float32)
    (theirs,) = onnxruntime.InferenceSession(str(model)).run(None, {"input_1:0": image.transpose(0, 2, 3, 1)})
    (scores,) = onnxruntime.InferenceSession(str(made.models["segmentation"].path)).run(["scores"], {"image": image})
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert probabilities == pytest.approx(theirs.transpose(0, 3, 1, 2), abs=1e-5)
    card = (tmp_path / "package" / "MODEL_CARD.md").read_text()
    assert "tf2onnx 1.16, opset 17" in card
    assert "How it was trained is not known here" in card


@pytest.mark.parametrize(
    ("made", "options", "words"),
    [
        ({}, SAID, "the channels seem to be the other way round"),
        ({"channels_last": False}, (*SAID, "--channels-last"), "the channels seem to be the other way round"),
        ({"opset": 9}, (*SAID, "--channels-last"), "opset is 9; from 11"),
        ({"domain": "com.microsoft"}, (*SAID, "--channels-last"), "com.microsoft are not part of the standard"),
        ({"rows": 256}, (*SAID, "--channels-last"), "rows and columns have to be free"),
        ({}, ("--channels-last",), "the data it was trained on and its licence must be said"),
        ({"text": b"not a model"}, SAID, "holds no ONNX model"),
    ],
)
def test_what_cannot_be_run_is_refused_in_words_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: dict[str, Any], options: tuple[str, ...], words: str
) -> None:
    monkeypatch.setenv("FORAMEN_HOME", str(tmp_path / "home"))
    path = tmp_path / "model.onnx"
    path.write_bytes(made["text"]) if "text" in made else tensorflow_like(path, **made)
    done = package(path, tmp_path / "package", *options)
    assert done.exit_code != 0
    assert words in re.sub(r"[\s│╭╮╰╯─]+", " ", done.output)
    assert {item.name for item in tmp_path.iterdir()} <= {"home", "model.onnx"}
