"""Model packages for tests: the one that the software comes with, under another version and with other constants."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from ai_services.models.registry import package_folder


def model_package(folder: Path, version: str, **calibration: float) -> Path:
    """Write a package; `calibration` replaces constants, so that the version says something else."""
    source = package_folder("lumbar_mr")
    folder.mkdir(parents=True)
    shutil.copytree(source / "weights", folder / "weights")
    shutil.copyfile(source / "MODEL_CARD.md", folder / "MODEL_CARD.md")
    manifest = yaml.safe_load((source / "manifest.yaml").read_text(encoding="utf-8"))
    manifest["version"] = version
    manifest["constants"]["calibration"] |= calibration
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest, allow_unicode=True), encoding="utf-8")
    return folder


def ct_model_package(folder: Path, version: str) -> Path:
    """The CT package that the software comes with, under another version."""
    source = package_folder("lumbar_ct")
    folder.mkdir(parents=True)
    shutil.copytree(source / "weights", folder / "weights")
    shutil.copyfile(source / "MODEL_CARD.md", folder / "MODEL_CARD.md")
    manifest = yaml.safe_load((source / "manifest.yaml").read_text(encoding="utf-8"))
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest | {"version": version}, allow_unicode=True))
    return folder
