"""The spool gives back what was put in, or says that it is not there; a worker's name survives a restart."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from ai_services.models.registry import load_manifest
from ai_services.results import run_record
from ai_services.results.run_record import observe_computation
from ai_services.workflow import durable, spool
from ai_services.workflow import services as worker_services
from tests.builders.prediction import prediction, source_datasets


@pytest.fixture(autouse=True)
def spool_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(worker_services, "current", lambda: SimpleNamespace(spool=tmp_path / "spool"))
    return tmp_path / "spool"


def test_a_prediction_comes_back_as_it_was_with_what_it_was_computed_with(monkeypatch: pytest.MonkeyPatch) -> None:
    made = replace(prediction(), providers={"segmentation": "CPUExecutionProvider"})
    computed = observe_computation(made, source_datasets(), load_manifest("lumbar_mr"))
    spool.save_prediction("run", made, computed)
    # An update between the models and the publication changes nothing that is told.
    monkeypatch.setattr(run_record, "version", lambda _: "9.9.9")
    loaded = spool.load_prediction("run")
    assert loaded is not None
    found, kept = loaded
    assert kept == computed
    assert kept.software["onnxruntime"] == onnxruntime.__version__
    assert kept.device.startswith("cpu; ")
    assert found.providers == made.providers
    np.testing.assert_array_equal(found.mask, prediction().mask)
    np.testing.assert_array_equal(found.affine_lps, prediction().affine_lps)
    for name in ("segments", "findings", "numbering", "models", "sop_instance_uids", "series_instance_uid"):
        assert getattr(found, name) == getattr(prediction(), name)


def test_a_series_comes_back_and_reads_only_the_pixels_that_are_looked_at(spool_folder: Path) -> None:
    spool.save_series("run", source_datasets())
    found = spool.load_series("run")
    assert found is not None
    assert [item.SOPInstanceUID for item in found] == [item.SOPInstanceUID for item in source_datasets()]
    (spool_folder / "run" / "series" / "00001.dcm").unlink()
    assert found[0].PixelData == source_datasets()[0].PixelData
    with pytest.raises(OSError, match="missing"):
        _ = found[1].PixelData  # it was not read before it was asked for


def test_what_was_not_written_completely_is_not_there(spool_folder: Path) -> None:
    spool.save_series("run", source_datasets())
    (spool_folder / "run" / "series" / "complete").unlink()
    assert spool.load_series("run") is None
    assert spool.load_prediction("run") is None


def test_others_may_not_read_it(spool_folder: Path) -> None:
    spool.save_series("run", source_datasets())
    assert (spool_folder / "run" / "series").stat().st_mode & 0o077 == 0


def test_a_run_that_ended_leaves_nothing(spool_folder: Path) -> None:
    spool.save_series("run", source_datasets())
    spool.forget("run")
    assert list(spool_folder.iterdir()) == []


def test_two_workers_have_two_names_and_a_restart_keeps_its_own(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from ai_services.workflow.durable import take_worker_id;"
        "print(take_worker_id(pathlib.Path(sys.argv[1])))"
    )
    alone = [subprocess.check_output([sys.executable, "-c", code, str(tmp_path)], text=True).strip() for _ in range(2)]
    assert alone[0] == alone[1]
    first = durable.take_worker_id(tmp_path)
    second = durable.take_worker_id(tmp_path)
    assert first == alone[0]
    assert second != first
