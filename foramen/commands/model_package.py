"""`foramen model package`: a trained run, or an ONNX file made elsewhere, becomes a signed candidate package.

Contract module 2; docs/how-to/train_a_model.md. The package is registered by `foramen model register`.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Annotated

import typer


def package(
    run: Annotated[
        Path, typer.Argument(help="Folder of a finished run of foramen train, or an .onnx file made elsewhere.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder of the package; it must not be there yet.")],
    version: Annotated[str, typer.Option(help="Version of the candidate, e.g. 1.2.0.")],
    by: Annotated[str, typer.Option(help="Who packages; it stands in the model card.")],
    base: Annotated[
        Path | None, typer.Option(help="Package that gives the other weights; what the pipeline comes with without it.")
    ] = None,
    role: Annotated[
        str | None, typer.Option(help="Role of the weights: segmentation or grading; a run says its own.")
    ] = None,
    name: Annotated[str, typer.Option(help="Pipeline.")] = "lumbar_mr",
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="ONNX: images as TensorFlow has them.")
    ] = False,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="ONNX: answers are no scores.")] = False,
    trained_on: Annotated[str, typer.Option(help="ONNX: the data it was trained on; it stands in the card.")] = "",
    licence: Annotated[str, typer.Option(help="ONNX: licence of that data and of the weights.")] = "",
) -> None:
    """Make a signed candidate package: manifest with hashes, weights, model card, release checklist."""
    from ai_services.models.registry import PackageError, package_folder
    from ai_services.models.release import signer
    from ai_services.training.packaging.package import Adaptation, Order, foreign_weights, make_package, run_weights
    from foramen.kernel.settings import get_settings

    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("onnx") is None:
        raise typer.BadParameter("packaging needs PyTorch and ONNX: make setup-train")
    from ai_services.training.packaging.trained_weights import role_of_run

    try:
        role = role or (role_of_run(run) if run.suffix != ".onnx" else "segmentation")
        order = Order(base or package_folder(name), version, role, by)
        if run.suffix == ".onnx":
            weights = foreign_weights(run, Adaptation(channels_last, probabilities), trained_on, licence)
        else:
            weights = run_weights(run)
        made = make_package(order, out, weights, signer(get_settings().home))
    except (PackageError, KeyError) as refused:
        raise typer.BadParameter(str(refused)) from refused
    typer.echo(f"{made.name} {made.version}, {role} {made.models[role].identity.sha256[:12]}: {out}")


def key() -> None:
    """Print the public key (JWK) that this installation signs packages with, for others who register them."""
    from ai_services.models.release import signer
    from foramen.kernel.settings import get_settings

    typer.echo(json.dumps(signer(get_settings().home).public(), sort_keys=True))
