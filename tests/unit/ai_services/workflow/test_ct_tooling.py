"""The tooling that MR has, on CT: dry runs, warm-up, comparison of versions, watch; SYNTHETIC phantoms only."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from ai_services.imaging.ct_phantom import CtSetting, ct_phantom
from ai_services.models.comparison import alone, compare, summarise
from ai_services.models.registry import load_manifest, package_folder, read_package
from ai_services.models.runtime import ModelIntegrityError
from ai_services.monitoring.judged import JudgedFinding
from ai_services.monitoring.observed import Value
from ai_services.monitoring.watch import samples_of, scores_of
from ai_services.pipelines.lumbar_ct.pipeline import run
from ai_services.prediction import PipelineError, Prediction
from ai_services.workflow.model_choice import choice_of, speaks
from ai_services.workflow.prediction_pool import Job, Pool, predict
from ai_services.workflow.spool import read_prediction
from ai_services.workflow.warm_up import warm_up
from foramen.commands.model import app as model_app
from tests.builders.ct_series import ct_series
from tests.builders.prediction import source_datasets
from tests.builders.watches import reports

STUDY = "1.2.826.0.1.3680043.8.498.77"


@pytest.fixture(scope="module")
def series() -> list[Dataset]:
    phantom = ct_phantom(4, CtSetting(spacing_mm=(2.0, 1.3, 1.3)))
    return ct_series(phantom, StudyInstanceUID=STUDY, SeriesInstanceUID=f"{STUDY}.1", FrameOfReferenceUID=f"{STUDY}.9")


@pytest.fixture(scope="module")
def prediction(series: list[Dataset]) -> Prediction:
    return run(series)


def written(folder: Path, series: list[Dataset]) -> tuple[Path, ...]:
    folder.mkdir(parents=True)
    for number, dataset in enumerate(series):
        dataset.save_as(folder / f"{number:03d}.dcm", enforce_file_format=True)
    return tuple(sorted(folder.glob("*.dcm")))


def test_a_dry_run_over_a_folder_reads_ct_and_leaves_mr_out(
    series: list[Dataset], prediction: Prediction, tmp_path: Path
) -> None:
    written(tmp_path / "in" / "ct", series)
    written(tmp_path / "in" / "mr", source_datasets())
    command = ["run", "--dry-run", "--processes", "1", "--pipeline", "lumbar_ct"]
    done = CliRunner().invoke(model_app, [*command, "--folder", str(tmp_path / "in"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "1 predicted" in done.output
    assert "are not CT images and are left out" in done.output
    (line,) = [json.loads(text) for text in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert line["study_instance_uid"] == STUDY
    assert [model["sha256"] for model in line["models"]] == [model.sha256 for model in prediction.models]
    found = read_prediction(tmp_path / "out" / f"{line['name']}.npz")
    assert (found.mask == prediction.mask).all()
    assert found.notice_en == prediction.notice_en
    assert found.findings == prediction.findings


def test_a_pool_for_mr_says_that_a_ct_study_holds_no_mr(series: list[Dataset], tmp_path: Path) -> None:
    (answer,) = predict([Job(STUDY, written(tmp_path / "in", series))], tmp_path / "out", Pool(1))
    assert (answer.status, answer.reason) == ("declined", "no-mr-images")


def test_an_unknown_pipeline_is_refused_in_words() -> None:
    done = CliRunner().invoke(model_app, ["run", "--dry-run", "--pipeline", "cervical", "--folder", ".", "--out", "x"])
    assert done.exit_code == 2
    assert "lumbar_ct" in done.output


def test_warm_up_loads_the_constants_of_ct_and_refuses_exchanged_ones(tmp_path: Path) -> None:
    warm_up(load_manifest("lumbar_ct"))
    source = package_folder("lumbar_ct")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "parameters.yaml").write_bytes((source / "weights" / "parameters.yaml").read_bytes() + b"#")
    (tmp_path / "manifest.yaml").write_bytes((source / "manifest.yaml").read_bytes())
    with pytest.raises(ModelIntegrityError, match="not the released one"):
        warm_up(read_package(tmp_path))


def test_two_versions_for_ct_are_compared_by_vertebrae_and_measures(prediction: Prediction) -> None:
    """Neither discs nor grades are there: an agreement of nothing with nothing must not look like agreement."""
    told = compare(prediction, prediction)
    assert told["vertebrae"] == [6, 6]
    assert told["arch_dice"] == told["body_dice"] == 1.0
    assert told["measured"]["canal-ap-bone"] == {"levels": 6, "mean": 0.0, "largest": 0.0, "unit": "mm"}
    wider = tuple(
        replace(item, value=item.value + 2.0) if item.code == "canal-width-bone" and item.level == "L4" else item
        for item in prediction.findings
    )
    kept = prediction.segments[:-2]  # the highest vertebra was not found
    numbers = [segment.number for segment in kept]
    mask = prediction.mask.copy()
    mask[mask > max(numbers)] = 0
    other = replace(prediction, findings=wider, segments=kept, mask=mask)
    told = compare(prediction, other)
    assert told["vertebrae"] == [6, 5]
    assert told["measured"]["canal-width-bone"] == {"levels": 6, "mean": 0.333, "largest": 2.0, "unit": "mm"}
    summary = summarise([{"comparison": told}, {"comparison": compare(prediction, prediction)}])
    assert summary["same_count"] == 0.5
    assert summary["same_pfirrmann"] is None
    assert summary["measured"]["canal-width-bone"] == {"levels": 12, "mean": 0.167, "largest": 2.0, "unit": "mm"}
    assert 0.8 < summary["body_dice"] < 1.0


def test_a_shadow_without_a_release_is_counted_and_compared_with_nothing(prediction: Prediction) -> None:
    summary = summarise([{"comparison": alone(prediction)}, {"comparison": {"declined": "not-lumbar-ct"}}])
    assert (summary["studies"], summary["declined"], summary["alone"]) == (2, 1, 1)
    assert summary["same_count"] is None
    told = sum(item.value is not None for item in prediction.findings) / len(prediction.findings)
    assert summary["alone_findings_told"] == pytest.approx(told, abs=1e-4)


def test_where_nobody_may_speak_what_comes_with_the_software_does_not_either() -> None:
    """A recalled only release of MR must not be answered by the same weights, taken as those that came along."""
    assert choice_of("lumbar_mr", None, is_known=False) is None
    with pytest.raises(PipelineError) as refused:
        choice_of("lumbar_mr", None, is_known=True)
    assert refused.value.reason_code == "no-model-released"
    assert not speaks(choice_of("lumbar_ct", None, is_known=True))
    assert choice_of("lumbar_ct", "0.1.0", is_known=True) == {"version": "0.1.0", "pipeline": "lumbar_ct"}
    assert speaks(choice_of("lumbar_mr", "9.0.0", is_known=True))


def test_the_watch_draws_what_ct_measures_both_sides_as_one_score() -> None:
    def measured(code: str, number: float) -> JudgedFinding:
        value = Value("number", "mm", "http://unitsofmeasure.org", number)
        return JudgedFinding(
            f"Observation/{code}", code, None, "Device/d", value, value, "agreed", None, None, None, None, None
        )

    codes = {"pedicle-width-right": 9.5, "pedicle-width-left": 10.5, "canal-ap-bone": 16.0, "canal-ap": 12.0}
    report = replace(reports(1, 1)[0], findings=tuple(measured(*item) for item in codes.items()))
    samples = samples_of([report], "lumbar_ct")
    assert set(samples) == set(scores_of("lumbar_ct"))
    assert samples["pedicle-width"].by_patient == ((9.5, 10.5),)
    assert samples["canal-ap-bone"].by_patient == ((16.0,),)
    assert "canal" not in samples
    assert samples_of([report])["canal"].by_patient == ((12.0,),)
