"""Reads model packages: a folder with manifest.yaml, MODEL_CARD.md and the weights that the manifest names (stage 4).

The package that a pipeline comes with lies in its own folder under ai_services/pipelines/; a new pipeline is a new
folder there, plus one line in `PIPELINES`. Later versions are packages of the same form, registered by `versions`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from yaml import YAMLError

from ai_services.prediction import ModelIdentity

PIPELINES: tuple[str, ...] = ("lumbar_mr", "lumbar_ct")
RELEASED_WITH_THE_SOFTWARE: frozenset[str] = frozenset({"lumbar_mr"})
"""The others come as candidates: they speak for nobody until a person releases them (ADR 0057)."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One weights file of a pipeline, as the manifest releases it."""

    role: str
    identity: ModelIdentity
    path: Path


class PackageError(Exception):
    """The folder is not a model package; the message names the place."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A package's manifest: identity, released files and the constants that the stages use.

    Parameters
    ----------
    name, version : of the pipeline
    digest : SHA-256 of manifest.yaml, hexadecimal; as it names the weights' hashes, it stands for the whole package
    intended_use_en, intended_use_zh : for people
    models : weights files by role
    constants : what the stages use
    """

    name: str
    version: str
    digest: str
    intended_use_en: str
    intended_use_zh: str
    models: Mapping[str, ModelFile]
    constants: Mapping[str, Any]


def list_pipelines() -> tuple[str, ...]:
    """Names of the pipelines that this installation can run."""
    return PIPELINES


@cache
def load_manifest(pipeline: str) -> Manifest:
    """Read the manifest of the package that a pipeline comes with.

    Raises
    ------
    KeyError
        If there is no such pipeline.
    """
    return read_package(package_folder(pipeline))


def package_folder(pipeline: str) -> Path:
    """Folder of the package that a pipeline comes with; KeyError where there is no such pipeline."""
    if pipeline not in PIPELINES:
        raise KeyError(f"no pipeline named {pipeline!r}")
    return Path(str(resources.files("ai_services.pipelines"))) / pipeline


def read_package(folder: Path) -> Manifest:
    """Read a package's manifest; the weights are not opened.

    Raises
    ------
    PackageError
        No manifest.yaml, or one that lacks what a manifest has, or names a file outside the package.
    """
    try:
        content = (folder / "manifest.yaml").read_bytes()
        document: dict[str, Any] = yaml.safe_load(content)
        models = {role: _model_file(folder, document, role, entry) for role, entry in document["models"].items()}
        return Manifest(
            name=str(document["name"]),
            version=str(document["version"]),
            digest=hashlib.sha256(content).hexdigest(),
            intended_use_en=str(document["intended_use"]["en"]),
            intended_use_zh=str(document["intended_use"]["zh"]),
            models=models,
            constants=document["constants"],
        )
    except OSError as exc:
        raise PackageError("the package has no manifest.yaml that can be read") from exc
    except (KeyError, TypeError, AttributeError, YAMLError, UnicodeDecodeError) as exc:
        raise PackageError(f"manifest.yaml: {type(exc).__name__} where a manifest has an element") from exc


def _model_file(folder: Path, document: dict[str, Any], role: str, entry: dict[str, Any]) -> ModelFile:
    path = folder / str(entry["file"])
    if not path.resolve().is_relative_to(folder.resolve()):
        raise PackageError(f"manifest.yaml: models.{role}.file lies outside the package")
    sha256 = str(entry["sha256"]).lower()
    return ModelFile(role, ModelIdentity(f"{document['name']}-{role}", str(document["version"]), sha256), path)
