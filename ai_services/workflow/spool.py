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
    from ai_services.results.run_record import Computation

_PREDICTION = "prediction.npz"
_READ_WHEN_ASKED = 2048
"""Elements larger than this many bytes, which is the pixels, are read from the file when they are looked at."""


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


def load_series(run_id: str) -> list[Dataset] | None:
    """The instances, None when they are not (completely) there; pixels are read only of those that are looked at."""
    import pydicom

    folder = run_folder(run_id) / "series"
    if not (folder / "complete").exists():
        return None
    return [pydicom.dcmread(path, defer_size=_READ_WHEN_ASKED) for path in sorted(folder.glob("*.dcm"))]


def save_prediction(run_id: str, prediction: Prediction, computation: Computation) -> None:
    """Write the prediction of a run and what it was computed with, in one file: neither is there without the other."""
    write_prediction(run_folder(run_id) / _PREDICTION, prediction, computation)


def load_prediction(run_id: str) -> tuple[Prediction, Computation] | None:
    """The prediction of a run and what it was computed with, None when they are not there."""
    path = run_folder(run_id) / _PREDICTION
    if not path.exists():
        return None
    computation = read_computation(path)
    return None if computation is None else (read_prediction(path), computation)


def write_prediction(path: Path, prediction: Prediction, computation: Computation | None = None) -> None:
    """Write a prediction: arrays by NumPy, the rest as JSON in the same file; renamed into place when complete.

    Parameters
    ----------
    path : of the file
    prediction : what was said
    computation : what it was computed with; None where nobody will ask
    """
    import numpy as np

    rest: dict[str, Any] = {
        key: value for key, value in asdict(prediction).items() if key not in ("mask", "affine_lps")
    }
    if computation is not None:
        rest["computation"] = asdict(computation)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    staged = path.with_name(f".{os.getpid()}-{path.name}")
    document = np.frombuffer(orjson.dumps(rest), dtype=np.uint8)
    with staged.open("wb") as file:
        np.savez_compressed(file, mask=prediction.mask, affine_lps=prediction.affine_lps, document=document)
    staged.replace(path)


def read_prediction(path: Path) -> Prediction:
    """A prediction that `write_prediction` wrote."""
    import numpy as np

    from ai_services.prediction import DiscScores, Finding, ModelIdentity, Numbering, Prediction, Segment

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
        discs=tuple(DiscScores(**{**item, "pfirrmann": tuple(item["pfirrmann"])}) for item in document["discs"]),
        modality=document.get("modality", "MR"),
        notice_en=document.get("notice_en"),
        notice_zh=document.get("notice_zh"),
        providers=document.get("providers", {}),
    )


def read_computation(path: Path) -> Computation | None:
    """What a written prediction was computed with, None where that was not written."""
    import numpy as np

    from ai_services.results.run_record import Computation, InputHash

    with np.load(path, allow_pickle=False) as arrays:
        found = orjson.loads(arrays["document"].tobytes()).get("computation")
    if found is None:
        return None
    inputs = {uid: InputHash(**hashes) for uid, hashes in found["inputs"].items()}
    return Computation(**{**found, "inputs": inputs})


def forget(run_id: str) -> None:
    """Remove the files of a run."""
    shutil.rmtree(run_folder(run_id), ignore_errors=True)
