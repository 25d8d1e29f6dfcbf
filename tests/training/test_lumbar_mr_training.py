"""Training runs end to end on tiny SYNTHETIC data, is repeatable, and its ONNX export gives the same numbers."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ai_services.imaging.phantom import lumbar_phantom

pytestmark = pytest.mark.training

PATIENTS = tuple(range(1, 9))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder laid out like data/spider, drawn from the phantom."""
    folder = tmp_path_factory.mktemp("spider")
    for part in ("midsagittal", "t2_space/images", "t2_space/masks"):
        (folder / part).mkdir(parents=True)
    overview, gradings = [], []
    for patient in PATIENTS:
        phantom = lumbar_phantom(patient, slices=1, rows=448, columns=352, spacing_mm=(4, 0.46875, 0.46875))
        images = (np.clip(phantom.pixels / 1200, 0, 1) * 255).astype(np.uint8)
        for index, (image, mask) in enumerate(zip(images, phantom.mask, strict=True)):
            name = f"{patient}_t2_SPACE_slice{index}"
            Image.fromarray(image).convert("RGB").save(folder / "t2_space/images" / f"{name}.webp", lossless=True)
            Image.fromarray(mask).save(folder / "t2_space/masks" / f"{name}.png")
        Image.fromarray(images[0]).save(folder / "midsagittal" / f"{patient}_t2.png")
        overview.append({"new_file_name": f"{patient}_t2", "PixelSpacing": "[.46875, .46875]"})
        for number, disc in enumerate(phantom.discs, start=1):
            gradings.append(
                {
                    "Patient": patient,
                    "IVD label": number,
                    "Pfirrman grade": 1 + round(4 * disc.degeneration),
                    "Disc bulging": int(disc.degeneration > 0.5),
                    "Disc herniation": int(disc.herniation_mm > 0),
                    "Disc narrowing": int(disc.height_mm < 8),
                }
            )
    for name, rows in (("overview.csv", overview), ("gradings.csv", gradings)):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    return folder


def test_two_steps_train_measure_and_export(data, tmp_path):
    from ai_services.training.lumbar_mr.__main__ import main

    arguments = [
        "--data",
        str(data),
        "--steps",
        "2",
        "--phantoms",
        "1",
        "--seed",
        "1",
        "--stage",
        "segmentation",
        "--out",
    ]
    main([*arguments, str(tmp_path / "a")])
    main([*arguments, str(tmp_path / "b")])
    first, second = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in "ab")
    assert first["dice_by_patient"] == second["dice_by_patient"]
    assert len(first["validation_patients"]) == 6
    assert (tmp_path / "a" / "segmentation.onnx").stat().st_size < 8_000_000


def test_the_split_is_by_patient_and_seeded():
    from ai_services.training.lumbar_mr.dataset import LabelledSlice, validation_patients
    from ai_services.training.lumbar_mr.segmentation_stage import training_slices

    patients = [patient for patient in range(30) for _ in range(4)]
    held_out = validation_patients(patients, 7)
    assert held_out == validation_patients(patients[::-1], 7)
    assert held_out != validation_patients(patients, 8)
    empty = np.zeros((2, 2), np.float32)
    slices = [LabelledSlice(patient, 0, empty + patient, empty.astype(np.uint8)) for patient in patients]
    kept = {float(item.image[0, 0]) for item in training_slices(slices, held_out)}
    assert not kept & set(map(float, held_out))
    assert len(kept) == 24


def test_grading_trains_calibrates_and_exports_with_parity(tmp_path):
    import onnxruntime
    import torch

    from ai_services.pipelines.lumbar_mr.grade import grade_discs
    from ai_services.training.lumbar_mr.calibration import fit_calibration
    from ai_services.training.lumbar_mr.dataset import DiscGrading
    from ai_services.training.lumbar_mr.disc_samples import DiscSample
    from ai_services.training.lumbar_mr.evaluate import grading_figures
    from ai_services.training.lumbar_mr.export import export_grading
    from ai_services.training.lumbar_mr.grading import folds_by_patient, scores, targets, train_grading

    rng = np.random.default_rng(0)
    samples = []
    for patient in range(12):
        for index in range(5):
            grade = int(rng.integers(1, 6))
            crop = rng.normal(grade / 5, 0.1, (3, 64, 96)).astype(np.float32)
            truth = DiscGrading(index, grade, grade > 2, bool(rng.random() < 0.3), grade > 3)
            samples.append(DiscSample(patient, "t2", True, crop, np.full(6, grade / 5, np.float32), truth))
    fold = folds_by_patient(samples, 0)
    for patient in range(12):
        assert len({int(fold[i]) for i, sample in enumerate(samples) if sample.patient == patient}) == 1
    ensemble, unseen = train_grading(samples, epochs=2, seed=0)
    calibration = fit_calibration(unseen, targets(samples))
    figures = grading_figures(
        unseen, targets(samples), np.array([sample.patient for sample in samples]), calibration, 0
    )
    assert 0 <= figures["pfirrmann_accuracy"]["value"] <= 1
    export_grading(ensemble, tmp_path / "grading.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "grading.onnx"))
    crops = np.stack([sample.crop for sample in samples[:4]])
    scalars = np.stack([sample.scalars for sample in samples[:4]])
    (found,) = session.run(None, {"crop": crops, "scalars": scalars})
    np.testing.assert_allclose(found, scores(ensemble, samples[:4]), atol=1e-3)
    assert len(grade_discs(found, calibration)) == 4
    assert torch.is_inference_mode_enabled() is False


def test_an_export_that_differs_is_refused(tmp_path, monkeypatch):
    from ai_services.training.lumbar_mr import export
    from ai_services.training.lumbar_mr.grading import GradingEnsemble, GradingNetwork

    monkeypatch.setattr(export, "PARITY_TOLERANCE", -1.0)
    with pytest.raises(export.ParityError):
        export.export_grading(GradingEnsemble([GradingNetwork()]), tmp_path / "grading.onnx")


def test_tuning_labels_t1_by_both_sequences_and_leaves_out_what_cannot_be_believed():
    import torch

    from ai_services.evaluation.placing import PlacedImage
    from ai_services.pipelines.lumbar_mr.postprocess import find_spine
    from ai_services.training.lumbar_mr.dataset import DiscGrading
    from ai_services.training.lumbar_mr.pseudo_label import keep_one_spine
    from ai_services.training.lumbar_mr.segmentation import SegmentationTrainer, build_network
    from ai_services.training.lumbar_mr.segmentation_tuning import pseudo_slices, with_other

    phantom = lumbar_phantom(1, slices=1, rows=240, columns=200, spacing_mm=(4, 0.94, 0.94))
    truth = phantom.mask[0]

    def image(patient: int, sequence: str, shift: int = 0, *, unsure: bool = False) -> PlacedImage:
        mask = np.roll(truth, shift, axis=1)
        probability = np.stack([mask == number for number in range(4)]).astype(np.float32)
        if unsure:  # of every disc; the outline alone would have none
            probability[:, mask == 2] = np.array([0.55, 0, 0.45, 0], np.float32)[:, None]
        return PlacedImage(patient, sequence, np.zeros((1, 1), np.float32), (0.94, 0.94), mask * 0.2, probability)

    found = len(find_spine(image(1, "t2").probability[None], 4.0).discs)
    graded = [DiscGrading(index, 1, False, False, False) for index in range(found)]
    images = [image(1, "t2"), image(1, "t1", 6, unsure=True), image(2, "t2"), image(3, "t2"), image(3, "t1", 40)]
    kept = pseudo_slices(images, {1: graded, 2: graded[:-2], 3: graded})
    # Patient 2 was graded with two discs fewer; the T1 of 3 lies 38 mm beside its T2.
    masks = [keep_one_spine(np.roll(truth, shift, axis=1)) for shift in (0, 6, 0)]
    assert len(kept) == 3
    assert all(np.array_equal(item.mask, mask) for item, mask in zip(kept, masks, strict=True))
    assert with_other(images[4].probability, images[3].probability) is None

    state = build_network().state_dict()
    trainer = SegmentationTrainer(steps=1, seed=1)
    trainer.begin_with(state)
    averaged = trainer.averaged().state_dict()
    assert all(torch.equal(averaged[name], value) for name, value in state.items())
