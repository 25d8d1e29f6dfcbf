"""The CT pipeline and the registration on SYNTHETIC phantoms: figures of what was drawn against what was found.

`python -m ai_services.evaluation.lumbar_ct`; with `--folder` it writes them as a labelled folder for
`foramen model evaluate --name lumbar_ct`. No figure here says anything about a patient: no labelled CT was there.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ai_services.evaluation.ct_folder import write_phantoms
from ai_services.imaging.ct_phantom import CtPhantom, CtSetting, ct_phantom
from ai_services.imaging.ct_phantom_bones import foramen_height_mm
from ai_services.imaging.volume import Volume
from ai_services.pipelines.lumbar_ct.parameters import load_parameters
from ai_services.pipelines.lumbar_ct.pipeline import CtAnalysis, analyse
from ai_services.prediction import PipelineError

USUAL = CtSetting(spacing_mm=(1.5, 1.0, 1.0), width_mm=140.0, depth_mm=132.0)
VARIANTS: Mapping[str, CtSetting] = {
    "usual": USUAL,
    "old bone, 90 HU": replace(USUAL, trabecular_hu=90.0),
    "gantry tilted by 12 degrees": replace(USUAL, gantry_tilt_deg=12.0),
    "noise of 45 HU": replace(USUAL, noise_hu=45.0),
    "slices of 2.5 mm": replace(USUAL, spacing_mm=(2.5, 1.0, 1.0)),
}


@dataclass(frozen=True, slots=True)
class Error:
    """One measure of one phantom: name and difference from what was drawn; NaN where it was withheld."""

    name: str
    value: float


def errors_of(phantom: CtPhantom, found: CtAnalysis) -> Iterator[Error]:
    """Overlap of parts, and differences of measures from what was drawn (found minus drawn)."""
    for frame in found.frames:
        for part, number in (("body", frame.body), ("arch", frame.arch)):
            mine, drawn = found.labels == number, phantom.labels == phantom.label_of[frame.name, part]
            yield Error(f"Dice {part}", 2 * float((mine & drawn).sum()) / float(mine.sum() + drawn.sum()))
    values = {(item.code, item.level): item.value for item in found.findings}
    for frame in found.frames:
        shape = phantom.shapes[frame.name]
        yield _difference("pedicle width, mm", values["pedicle-width-right", frame.name], shape.pedicle_width_mm[0])
        yield _difference("pedicle width, mm", values["pedicle-width-left", frame.name], shape.pedicle_width_mm[1])
        yield _difference("canal width, mm", values["canal-width-bone", frame.name], shape.canal_width_mm)
        yield _difference("canal depth, mm", values["canal-ap-bone", frame.name], shape.canal_depth_mm)
    below = ("S1", *(frame.name for frame in found.frames))
    for frame, lower in zip(found.frames, below, strict=False):
        level = f"{frame.name}-{lower}"
        right, left = phantom.shapes[lower].facet_deg
        yield _difference("facet angle, degrees", values["facet-angle-right", level], right)
        yield _difference("facet angle, degrees", values["facet-angle-left", level], left)
        if lower != "S1":
            bones = {bone.shape.name: bone for bone in phantom.bones}
            for number, side in enumerate(("right", "left")):
                height = values[f"foramen-height-{side}", level]
                drawn = foramen_height_mm(bones[frame.name], bones[lower], number)
                yield _difference("foramen height, mm", height, drawn)


def _difference(name: str, found: float | str | None, drawn: float) -> Error:
    return Error(name, float("nan") if found is None else float(found) - drawn)


def table(seeds: range) -> str:
    """A Markdown table: per variant and measure how many were told, and the median and 95th percentile of errors."""
    parameters = load_parameters()
    lines = ["| phantoms | measure | told | median | 95 % within |", "|---|---|---|---|---|"]
    for variant, setting in VARIANTS.items():
        errors: dict[str, list[float]] = {}
        counted = refused = 0
        for seed in seeds:
            phantom = ct_phantom(seed, setting)
            try:
                found = analyse(Volume(phantom.pixels.astype(np.float32), phantom.affine_lps), parameters)
            except PipelineError as declined:
                refused += 1
                lines.append(f"| {variant} | phantom {seed} refused | {declined.reason_code} | | |")
                continue
            counted += int(found.numbering.confident)
            for error in errors_of(phantom, found):
                errors.setdefault(error.name, []).append(error.value)
        lines.append(f"| {variant} | answered, count sure | {len(seeds) - refused} and {counted} of {len(seeds)} | | |")
        lines += [_row(variant, name, np.array(values)) for name, values in errors.items()]
    return "\n".join(lines)


def _row(variant: str, name: str, values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> str:
    told = values[~np.isnan(values)]
    if not len(told):
        return f"| {variant} | {name} | 0 of {len(values)} | | |"
    if name.startswith("Dice"):
        return (
            f"| {variant} | {name} | {len(told)} of {len(values)} | {np.median(told):.3f} "
            f"| at least {np.percentile(told, 5):.3f} |"
        )
    spread = np.percentile(np.abs(told), 95)
    return f"| {variant} | {name} | {len(told)} of {len(values)} | {np.median(told):+.1f} | ±{spread:.1f} |"


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="Figures of the CT pipeline on SYNTHETIC phantoms.")
    arguments.add_argument("--phantoms", type=int, default=3, help="How many phantoms of each kind.")
    arguments.add_argument("--folder", type=Path, help="Write a labelled SYNTHETIC folder here instead of the table.")
    asked = arguments.parse_args()
    numbers = range(100, 100 + asked.phantoms)
    if asked.folder is not None:
        write_phantoms(asked.folder, (ct_phantom(seed, USUAL) for seed in numbers))
    else:
        print(table(numbers))  # noqa: T201  the table is what this is for
