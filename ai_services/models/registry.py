"""Lists the pipelines, reads their manifests and names their models (stage 4).

A new pipeline is a new folder under ai_services/pipelines/ with a manifest.yaml, plus one line in `PIPELINES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from ai_services.prediction import ModelIdentity

PIPELINES: tuple[str, ...] = ("lumbar_mr",)


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One weights file of a pipeline, as the manifest releases it."""

    role: str
    identity: ModelIdentity
    path: Path


@dataclass(frozen=True, slots=True)
class Manifest:
    """A pipeline's manifest: identity, released files and the constants its stages use."""

    name: str
    version: str
    intended_use_en: str
    intended_use_zh: str
    models: Mapping[str, ModelFile]
    constants: Mapping[str, Any]


def list_pipelines() -> tuple[str, ...]:
    """Names of the pipelines that this installation can run."""
    return PIPELINES


@cache
def load_manifest(pipeline: str) -> Manifest:
    """Read one pipeline's manifest.yaml.

    Raises
    ------
    KeyError
        If there is no such pipeline.
    """
    if pipeline not in PIPELINES:
        raise KeyError(f"no pipeline named {pipeline!r}")
    folder = Path(str(resources.files("ai_services.pipelines"))) / pipeline
    document: dict[str, Any] = yaml.safe_load((folder / "manifest.yaml").read_text(encoding="utf-8"))
    models = {
        role: ModelFile(
            role=role,
            identity=ModelIdentity(f"{document['name']}-{role}", str(document["version"]), str(entry["sha256"])),
            path=folder / str(entry["file"]),
        )
        for role, entry in document["models"].items()
    }
    return Manifest(
        name=str(document["name"]),
        version=str(document["version"]),
        intended_use_en=str(document["intended_use"]["en"]),
        intended_use_zh=str(document["intended_use"]["zh"]),
        models=models,
        constants=document["constants"],
    )
