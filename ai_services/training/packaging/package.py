"""Puts a candidate package together: manifest with hashes, weights, model card, checklist, signature (stage 11).

A pipeline has weights for several roles. A training gives those of one; the others, and the constants, come from a base
package, and the card says so. The package is written whole or not at all. ADR 0049, ADR 0050.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from ai_services.models.registry import Manifest, PackageError, read_package
from ai_services.models.release import SIGNATURE_FILE, sign_package
from ai_services.training.packaging.contract import check_fits, contract_of
from ai_services.training.packaging.documents import Origin, checklist, data_of_run, model_card, words_of_run
from foramen.kernel.crypto import StatementSigner

CHECKLIST_FILE = "RELEASE_CHECKLIST.md"


@dataclasses.dataclass(frozen=True, slots=True)
class Adaptation:
    """How an ONNX file made elsewhere differs from what the pipeline uses; nothing of it is guessed.

    Parameters
    ----------
    channels_last : images are (slice, row, column, channel), as TensorFlow has them
    probabilities : the answer is probabilities, not scores
    """

    channels_last: bool = False
    probabilities: bool = False


_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+(?:[-+][0-9A-Za-z.-]+)?")
Weights = Callable[[Path, Path], tuple[Origin, dict[str, Any]]]
"""Writes the new weights to a path, given those of the base; gives their origin for the documents, and what the
manifest says of it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    """What package is wanted.

    Parameters
    ----------
    base : folder of the package whose other weights and constants are taken over
    version : of the candidate (https://semver.org)
    role : of the new weights
    by_whom : who packages
    """

    base: Path
    version: str
    role: str
    by_whom: str


def make_package(order: Order, out: Path, weights: Weights, signer: StatementSigner) -> Manifest:
    """Write a signed candidate package.

    Parameters
    ----------
    order : what is wanted
    out : folder that is not there yet
    weights : writes the new weights
    signer : key of this installation

    Raises
    ------
    PackageError
        The folder is there, the version is no version or the base's, the base has no such role, or the weights do not
        fit it. Nothing is left behind.
    """
    if out.exists():
        raise PackageError("the folder of the package is there already; a package is never changed")
    if not _VERSION.fullmatch(order.version) or not order.by_whom.strip():
        raise PackageError("a package needs who makes it, and a version such as 1.2.0")
    base = read_package(order.base)
    if order.role not in base.models:
        raise PackageError(f"the base package has no weights of this role; it has {', '.join(sorted(base.models))}")
    if order.version == base.version:
        raise PackageError("the base package has this version; a version never changes")
    staged = out.with_name(f".{out.name}.part")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    try:
        manifest = _fill(staged, order, base, weights, signer)
        staged.rename(out)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return dataclasses.replace(manifest, models=read_package(out).models)


def run_weights(run: Path) -> Weights:
    """The weights of a finished run of `foramen train`."""

    def write(path: Path, base: Path) -> tuple[Origin, dict[str, Any]]:
        from ai_services.training.packaging.trained_weights import export_run  # needs PyTorch

        trained = export_run(run, path, base)
        record = dataclasses.asdict(trained.record)
        words = words_of_run(record, trained.step)
        if trained.share is not None:
            shares = f"{1 - trained.share:.2f} of the base's grader and {trained.share:.2f} of the new one"
            words += f"\n\nThe scores are {shares}; the calibration is the base's."
        origin = Origin(words, data_of_run(record["dataset"]), trained.figures)
        told = {
            "run": trained.record.name,
            "recipe": trained.record.recipe_digest,
            "dataset": trained.record.dataset["digest"],
            "code": sorted({session.code for session in trained.record.sessions}),
            "step": trained.step,
        }
        told |= {} if trained.share is None else {"share": trained.share}
        return origin, told

    return write


def foreign_weights(source: Path, how: Adaptation, data: str, licence: str) -> Weights:
    """The weights of an ONNX file that was made elsewhere.

    Parameters
    ----------
    source : the file
    how : how it differs from what the pipeline uses
    data, licence : what it was trained on, as whoever brings it says
    """
    if not data.strip() or not licence.strip():
        raise PackageError("for a model made elsewhere, the data it was trained on and its licence must be said")

    def write(path: Path, _: Path) -> tuple[Origin, dict[str, Any]]:
        from ai_services.training.packaging.foreign_adapter import adapted_weights  # needs the package onnx

        told = adapted_weights(source, path, how)
        words = f"Made elsewhere ({told['producer'] or 'producer not named'}, opset {told['opset']}), file "
        words += f"`{source.name}`, SHA-256 `{told['source']}`. How it was trained is not known here."
        return Origin(words, f"As whoever brought it says: {data.strip()}. Licence: {licence.strip()}.", {}), told

    return write


def _fill(folder: Path, order: Order, base: Manifest, weights: Weights, signer: StatementSigner) -> Manifest:
    document: dict[str, Any] = yaml.safe_load((order.base / "manifest.yaml").read_bytes())
    for role, file in base.models.items():
        path = folder / str(document["models"][role]["file"])
        path.parent.mkdir(parents=True, exist_ok=True)
        if role != order.role:
            shutil.copyfile(file.path, path)
    new = document["models"][order.role]
    path = folder / str(new["file"])
    origin, told = weights(path, base.models[order.role].path)
    check_fits(path, contract_of(base.models[order.role].path))
    document["version"] = order.version
    new["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    document["trained"] = {"role": order.role, "base": {"version": base.version, "manifest": base.digest}, **told}
    text = yaml.safe_dump(document, allow_unicode=True, sort_keys=False, width=120)
    (folder / "manifest.yaml").write_text(text, encoding="utf-8")
    manifest = read_package(folder)
    card = model_card(manifest, order.role, origin, base, order.by_whom)
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    (folder / CHECKLIST_FILE).write_text(checklist(manifest), encoding="utf-8")
    manifest, statement = sign_package(folder, signer)
    (folder / SIGNATURE_FILE).write_text(statement, encoding="ascii")
    return manifest
