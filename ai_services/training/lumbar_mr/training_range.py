"""Writes the range of the released grader's training measures into its manifest, and says whom its limit refuses.

The range is that to which the grader clips (`feature_grader.LinearGrader`), read from grading.onnx, so it belongs to
exactly these weights (stage 11). Run it after every change of the grader:

    python -m ai_services.training.lumbar_mr.training_range --write
    python -m ai_services.training.lumbar_mr.training_range --data ../shared/data/spider
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx  # type: ignore[import-not-found,import-untyped,unused-ignore]
from numpy.typing import NDArray
from onnx import numpy_helper

from ai_services.evaluation.folder import LabelledFolder, read_folder
from ai_services.models.registry import Manifest, load_manifest
from ai_services.pipelines.lumbar_mr.infer import Networks, load_networks
from ai_services.pipelines.lumbar_mr.outline import outline, prepared_of, require_usable
from ai_services.pipelines.lumbar_mr.pipeline import measures_of
from ai_services.pipelines.lumbar_mr.training_range import range_of
from ai_services.prediction import PipelineError
from ai_services.training.lumbar_mr.splits import HELD_OUT

LARGEST_SHARE = 0.12
"""POLICY: above the largest share of a usable clean image of every fourth patient (11.0 %)."""
_BLOCK = re.compile(r"  training_range:.*\n(?:    .*\n)*")


def clip_range(manifest: Manifest) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lower and upper bound of each measure, shape (feature,), as the grader's graph holds them."""
    graph = onnx.load(manifest.models["grading"].path).graph
    found = {item.name: item for item in graph.initializer if item.name in ("low", "high")}
    return numpy_helper.to_array(found["low"]), numpy_helper.to_array(found["high"])


def block_of(manifest: Manifest) -> str:
    """The range as lines of manifest.yaml, in the place of `constants`."""
    low, high = clip_range(manifest)
    sides = {name: ", ".join(f"{value:.6g}" for value in side) for name, side in (("low", low), ("high", high))}
    return (
        "  training_range:  # of the 123 measures; written by training/lumbar_mr/training_range.py\n"
        f"    grading_sha256: {manifest.models['grading'].identity.sha256}\n"
        f"    largest_share: {LARGEST_SHARE}\n"
        f"    low: [{sides['low']}]\n"
        f"    high: [{sides['high']}]\n"
    )


def written(text: str, block: str) -> str:
    """A manifest's text with the block in it, instead of an older one or before the notes."""
    if _BLOCK.search(text):
        return _BLOCK.sub(lambda _: block, text, count=1)
    return text.replace("\nnotes:\n", f"\n{block}notes:\n", 1)


def shares(folder: LabelledFolder, networks: Networks) -> Iterator[tuple[int, float]]:
    """Patients with a usable T2 midsagittal image, and which share of its measures lies outside."""
    known = range_of(networks.manifest)
    if known is None:
        raise SystemExit("the manifest holds no range of this grader: run with --write first")
    for patient in folder.patients:
        series = folder.still(patient, "t2")
        if series is None:
            continue
        try:
            outlined = outline(prepared_of(series.volume), networks)
            require_usable(outlined, networks)
        except PipelineError:
            continue
        yield patient, known.outside(measures_of(outlined)[0])


def main() -> None:
    """Write, or say whom the limit refuses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the range into the pipeline's manifest")
    parser.add_argument("--data", type=Path, help="folder laid out like ../shared/data/spider")
    parser.add_argument("--every", type=int, default=1, help="only every so many-th patient that is not held out")
    asked = parser.parse_args()
    manifest = load_manifest("lumbar_mr")
    if asked.write:
        file = manifest.models["grading"].path.parents[1] / "manifest.yaml"
        file.write_text(written(file.read_text(encoding="utf-8"), block_of(manifest)), encoding="utf-8")
    if asked.data is None:
        return
    folder = read_folder(asked.data)
    others = [patient for patient in folder.patients if patient not in HELD_OUT][:: asked.every]
    for name, patients in (("held out", set(HELD_OUT)), ("cross-validated", set(others))):
        kept = {key: path for key, path in folder.still_images.items() if key[0] in patients}
        part = LabelledFolder(folder.path, {}, folder.properties, {}, kept)
        found = [share for _, share in shares(part, load_networks())]
        refused = sum(share > LARGEST_SHARE for share in found)
        largest, median = (max(found), float(np.median(found))) if found else (float("nan"), float("nan"))
        print(  # noqa: T201  the command's answer
            f"{name}: {len(found)} usable, {refused} refused above {LARGEST_SHARE:.0%}; "
            f"median share {median:.1%}, largest {largest:.1%}"
        )


if __name__ == "__main__":
    main()
