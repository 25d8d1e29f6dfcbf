"""Files of a run that are too large for the database; losing them costs time, never a result (stage 4).

A folder per run under FORAMEN_HOME/spool, readable by the owner alone, named by run id; removed when the run ends.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from ai_services.workflow import services as worker_services

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from ai_services.prediction import Prediction

_PREDICTION = "prediction.npz"


def run_folder(run_id: str) -> Path:
    """Folder of a run."""
    return worker_services.current().spool / run_id


def save_series(run_id: str, datasets: Sequence[Dataset]) -> None:
    """Write the instances of the series that is analysed."""
    folder = run_folder(run_id) / "series"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    for number, dataset in enumerate(datasets):
        dataset.save_as(folder / f"{number:05d}.dcm", enforce_file_format=True)
    (folder / "complete").touch()


def load_series(run_id: str, *, pixels: bool) -> list[Dataset] | None:
    """The instances, None when they are not (completely) there."""
    import pydicom

    folder = run_folder(run_id) / "series"
    if not (folder / "complete").exists():
        return None
    return [pydicom.dcmread(path, stop_before_pixels=not pixels) for path in sorted(folder.glob("*.dcm"))]


def save_prediction(run_id: str, prediction: Prediction) -> None:
    """Write a prediction: arrays by NumPy, the rest as JSON in the same file; renamed into place when complete."""
    import numpy as np

    rest: dict[str, Any] = {
        key: value for key, value in asdict(prediction).items() if key not in ("mask", "affine_lps")
    }
    folder = run_folder(run_id)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    staged = folder / f".{os.getpid()}.npz"
    document = np.frombuffer(orjson.dumps(rest), dtype=np.uint8)
    with staged.open("wb") as file:
        np.savez_compressed(file, mask=prediction.mask, affine_lps=prediction.affine_lps, document=document)
    staged.replace(folder / _PREDICTION)


def load_prediction(run_id: str) -> Prediction | None:
    """The prediction, None when it is not there."""
    import numpy as np

    from ai_services.prediction import Finding, ModelIdentity, Numbering, Prediction, Segment

    path = run_folder(run_id) / _PREDICTION
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        mask, affine, document = arrays["mask"], arrays["affine_lps"], orjson.loads(arrays["document"].tobytes())
    return Prediction(
        study_instance_uid=document["study_instance_uid"],
        series_instance_uid=document["series_instance_uid"],
        sop_instance_uids=tuple(document["sop_instance_uids"]),
        mask=mask,
        affine_lps=affine,
        segments=tuple(Segment(**item) for item in document["segments"]),
        findings=tuple(Finding(**item) for item in document["findings"]),
        numbering=Numbering(**document["numbering"]),
        models=tuple(ModelIdentity(**item) for item in document["models"]),
        seconds=document["seconds"],
    )


def forget(run_id: str) -> None:
    """Remove the files of a run."""
    shutil.rmtree(run_folder(run_id), ignore_errors=True)
