"""Labels and de-identified images → tables of discs, as `foramen train` reads them (stage 11; ADR 0053).

Every disc that a physician decided on is outlined again in its series and cut out with its neighbours. Files that are
not de-identified, or of another project than the labels, stop the whole: nothing is written.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from ai_services.imaging.geometry import volume_from_datasets
from ai_services.imaging.volume import InvalidGeometryError
from ai_services.pipelines.lumbar_mr.crop import disc_pose
from ai_services.pipelines.lumbar_mr.infer import Networks
from ai_services.pipelines.lumbar_mr.outline import Outlined, outline, prepared_of
from ai_services.pipelines.lumbar_mr.patch import disc_patch
from ai_services.prediction import PipelineError
from ai_services.training import dataset_version as versions
from ai_services.training.dataset_version import DatasetError, DatasetVersion
from ai_services.training.disc_table import TARGETS, DiscTable, path_of, truth_of, without_t1, write_table
from ai_services.training.labels.decided import Known, Place, decided_discs
from ai_services.training.labels.draw import ABOUT, read

PROOF = "deidentification.json"
REPORT = "report.json"


@dataclass(frozen=True, slots=True)
class Sources:
    """Labels and images that belong together, checked.

    Parameters
    ----------
    labels : folder and version of the labels
    images : folder that `foramen deidentify` wrote
    project : of both
    report : SHA-256 of the report of the de-identification
    """

    labels: tuple[Path, DatasetVersion]
    images: Path
    project: str
    report: str


@dataclass(slots=True)
class Laid:
    """What was laid out: tables by place, files that were looked at, and why others are not among them."""

    tables: dict[Place, DiscTable] = field(default_factory=dict)
    instances: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


def sources_of(labels: Path, images: Path) -> Sources:
    """Check labels and images against their manifest and report.

    Raises
    ------
    DatasetError
        The labels are not one version, unchanged; the images have no report, or one of another project.
    """
    manifests = sorted((labels / versions.MANIFEST_FOLDER).glob("*.json"))
    if len(manifests) != 1:
        raise DatasetError("the labels' folder holds no version, or more than one")
    version = versions.load(manifests[0])
    if not versions.compare(labels, version).none:
        raise DatasetError("the labels were changed after they were drawn")
    try:
        about = json.loads((labels / ABOUT).read_bytes())
        content = (images / REPORT).read_bytes()
        report = json.loads(content)
        project, of_images = str(about["project"]), str(report["project"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise DatasetError(
            "the images' folder holds no report of foramen deidentify, or the labels say no project"
        ) from exc
    if project != of_images:
        raise DatasetError("labels and images are of different projects: their pseudonyms do not fit")
    return Sources((labels, version), images, project, hashlib.sha256(content).hexdigest())


def lay_out(sources: Sources, networks: Networks) -> Laid:
    """Outline each labelled series again and cut out its discs.

    Raises
    ------
    DatasetError
        A file is not de-identified, or not of the patient and series that its place says.
    """
    laid = Laid()
    for place, known in sorted(
        decided_discs(read(sources.labels[0]), laid.left_out).items(), key=lambda item: item[0].path
    ):
        instances = list(_instances(sources.images, place))
        laid.instances += len(instances)
        if not instances:
            laid.left_out["no-images"] += len(known)
            continue
        try:
            outlined = outline(prepared_of(volume_from_datasets(instances).volume), networks)
        except (InvalidGeometryError, PipelineError):
            laid.left_out["images-not-usable"] += len(known)
            continue
        table, missed = table_of(outlined, known)
        laid.left_out["disc-not-found-again"] += missed
        if table is not None:
            laid.tables[place] = table
    return laid


def table_of(outlined: Outlined, known: Mapping[int, Known]) -> tuple[DiscTable | None, int]:
    """All discs of a spine, with what is known of them; None where nothing is, and how many known ones are not there.

    A disc is the one that was decided on where number and level both are: another version may count otherwise.
    """
    prepared, spine = outlined.prepared, outlined.spine
    patches, truth, taken = [], [], 0
    for disc in spine.discs:
        pose = disc_pose(spine, disc.label)
        image, spacing = prepared.oriented[pose.slice_index], (prepared.spacing_mm[1], prepared.spacing_mm[2])
        patches.append(disc_patch(image, spacing, outlined.probability[pose.slice_index], pose))
        own = known.get(disc.label)
        same = own is not None and own.level == disc.level
        taken += same
        truth.append(truth_of(own.pfirrmann, own.form) if own is not None and same else truth_of(None, None))
    missed = len(known) - taken
    if not taken:
        return None, missed
    return DiscTable(without_t1(np.stack(patches)), np.array(truth, dtype=np.float32)), missed


def write(
    folder: Path,
    laid: Laid,
    sources: Sources,
    networks: Networks,
    *,
    name: str,
    licence: str,
    by: str,
    seed: int,
    shares: Mapping[str, float],
) -> tuple[Path, DatasetVersion]:
    """Write tables and manifest; returns the manifest's path and the version.

    Raises
    ------
    DatasetError
        There is nothing to write, or the folder holds something: nothing is written.
    """
    if not laid.tables:
        raise DatasetError("no disc could be laid out; what was left out is counted by its reason")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise DatasetError("the folder is not empty: a version is made once")
    for place, table in laid.tables.items():
        write_table(folder / path_of(place.patient, place.series), table)
    proof = {"labels": sources.labels[1].digest, "images": sources.report, "instances_checked": laid.instances}
    _write_json(folder / PROOF, proof)
    _write_json(folder / ABOUT, _about(laid, sources, networks))
    version = versions.make_version(
        folder,
        name=name,
        licence=licence,
        source=f"decisions of physicians and their images, project {sources.project}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        created_by=by,
        deidentification=folder / PROOF,
        seed=seed,
        shares=shares,
    )
    return versions.save(folder, version), version


def _instances(images: Path, place: Place) -> Iterator[Dataset]:
    folder = images / place.path
    for path in sorted(folder.glob("*.dcm")) if folder.is_dir() else ():
        try:
            instance = dcmread(path)
        except (InvalidDicomError, OSError) as exc:
            raise DatasetError("an image cannot be read") from exc
        removed = instance.get("PatientIdentityRemoved") == "YES"
        if not removed or (instance.get("PatientID"), instance.get("SeriesInstanceUID")) != (
            place.patient,
            place.series,
        ):
            raise DatasetError("an image is not de-identified, or not of the patient and series that its place says")
        yield instance


def _about(laid: Laid, sources: Sources, networks: Networks) -> dict[str, Any]:
    truth = np.concatenate([table.truth for table in laid.tables.values()])
    labels = sources.labels[1]
    return {
        "what": "discs that physicians decided on, cut out of their images, under pseudonyms",
        "project": sources.project,
        "labels": f"{labels.name}-{labels.digest}",
        "outlines": {role: file.identity.sha256 for role, file in sorted(networks.manifest.models.items())},
        "series": len(laid.tables),
        "discs": len(truth),
        "known": {name: _counts(truth[:, number]) for number, name in enumerate(TARGETS)},
        "left_out": {name: count for name, count in sorted(laid.left_out.items()) if count},
    }


def _counts(values: Sequence[float] | Any) -> dict[str, int]:
    return {"yes": int((np.asarray(values) == 1).sum()), "no": int((np.asarray(values) == 0).sum())}


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
