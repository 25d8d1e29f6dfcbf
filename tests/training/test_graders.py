"""Graders are trained on tables of discs; what physicians decided becomes such tables, and a signed candidate.

All data is SYNTHETIC. docs/how-to/learn_from_corrections.md, docs/how-to/train_a_model.md.
"""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset

from ai_services.models.registry import load_manifest, package_folder, read_package
from ai_services.models.release import signer
from ai_services.training.dataset_version import DatasetError, DatasetVersion, compare, load, make_version, save
from ai_services.training.disc_table import DiscTable, files_of, path_of, read_table, write_table
from ai_services.training.engine.recipe import Recipe, RecipeError, recipe_of
from ai_services.training.labels import draw as labels
from ai_services.training.labels import layout
from ai_services.training.labels.consent import ConsentRule
from dicomweb.deidentification.identity import Subject
from dicomweb.deidentification.profile import Options, Profile
from dicomweb.deidentification.report import report_content, write_report
from dicomweb.deidentification.run import Project, deidentify_all
from foramen.kernel.crypto.pseudonyms import ProjectPseudonyms
from foramen.kernel.fhir_client import FhirClient
from tests.builders.decisions import decide, patient_of, research_consent, study_of
from tests.builders.mr_series import mr_series
from tests.builders.tokens import ORIGIN, bearer
from tests.builders.training_data import phantom
from tests.contract.fhir.api import Api, running

pytestmark = pytest.mark.training
RECIPE: dict[str, Any] = {"name": "grades", "batch": 4, "steps": 12, "precision": "fp32", "rate": 0.01,
                          "checkpoint_every": 6, "evaluate_every": 12, "augment": False,
                          "options": {"widths": [8, 8, 16, 16]}}  # fmt: skip
KEY = ProjectPseudonyms(b"SYNTHETIC key of a project")
HOW: dict[str, Any] = {"licence": "none", "seed": 1, "shares": {"train": 0.5, "validation": 0.5, "test": 0.0}}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    """Threads of small matrices cost more than they give."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(folder: Path, version: DatasetVersion, out: Path, **recipe: Any) -> dict[str, float]:
    import torch

    from ai_services.training.engine.loop import Run, train
    from ai_services.training.engine.parallel import Place

    return train(Run(recipe_of({**RECIPE, **recipe}), version, folder, out), Place(0, 1, torch.device("cpu")))


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DatasetVersion]:
    """Spines of three or four discs; how bright a disc is tells every label, and one label in three is not known."""
    folder, rng = tmp_path_factory.mktemp("tables"), np.random.default_rng(0)
    for patient in range(1, 9):
        signal = rng.permutation(np.linspace(0.1, 0.9, 3 + patient % 2)).astype(np.float32)
        patches = np.ones((len(signal), 4, 96, 128), np.float32)  # fluid at the top, bone, and the disc between
        patches[:, :, 20:] = 0.5
        patches[:, :, 36:60, 30:98] = signal[:, None, None, None]
        truth = (signal[:, None] < np.linspace(0.2, 0.8, 7)).astype(np.float32)
        truth[:, rng.random(7) < 0.33] = np.nan
        write_table(folder / path_of(str(patient), "t2"), DiscTable(patches, truth))
    version = make_version(
        folder, name="tiny", source="SYNTHETIC", created="2026-11-23T00:00:00Z", created_by="test", **HOW
    )
    save(folder, version)
    return folder, version


@pytest.mark.parametrize(("architecture", "steps", "rate"), [("resnet", 12, 0.01), ("disc-sequence", 36, 0.02)])
def test_a_grader_learns_goes_on_after_a_stop_and_divides_its_batch(
    tables: tuple[Path, DatasetVersion], tmp_path: Path, architecture: str, steps: int, rate: float
) -> None:
    import torch

    from ai_services.training.engine.architectures import build
    from ai_services.training.engine.disc_samples import DiscSamples, grade_loss

    folder, version = tables
    told = {"architecture": architecture, "steps": steps, "rate": rate, "checkpoint_every": steps - 3}
    straight = trained(folder, version, tmp_path / "straight", **told)
    lines = [json.loads(line) for line in (tmp_path / "straight" / "steps.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert straight["validation_auroc"] > 0.8, straight
    # Stopped after a checkpoint and gone on with, the last steps are the same to the digit.
    (tmp_path / "straight" / "checkpoints" / f"{steps:08d}.pt").unlink()
    again = trained(folder, version, tmp_path / "straight", **told)
    assert again == straight
    # What two processes would compute of a batch is the batch, though spines differ in length.
    recipe = recipe_of({**RECIPE, "architecture": architecture})
    samples, network = DiscSamples(files_of(folder, version, "train"), recipe), build(recipe)

    def loss(*positions: int) -> float:
        views, truth = samples.batch(1, positions)
        with torch.inference_mode():
            return float(grade_loss(network(views), truth))

    assert (loss(0, 2) + loss(1, 3)) / 2 == pytest.approx(loss(0, 1, 2, 3), abs=1e-5)


def test_what_a_grader_cannot_use_is_refused(tables: tuple[Path, DatasetVersion], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="crop: a grader sees the whole patch"):
        recipe_of({**RECIPE, "architecture": "resnet", "crop": [64, 64]})
    with pytest.raises(RecipeError, match="is not cut into layers"):
        recipe_of({**RECIPE, "architecture": "resnet", "parallel": "pipeline"})
    with pytest.raises(DatasetError, match="no labelled slice"):
        trained(*tables, tmp_path / "run", architecture="unet", crop=[64, 64])
    assert not (tmp_path / "run").exists()
    broken = tmp_path / "broken.npz"
    with broken.open("wb") as file:
        np.savez(file, patches=np.array([{}], dtype=object), truth=np.zeros((1, 7)))
    with pytest.raises(DatasetError, match="cannot be read"):
        read_table(broken)


async def test_decisions_become_tables_a_trained_grader_and_a_signed_candidate(
    module_database_url: str, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    async with running(module_database_url) as (_, client):
        api = Api(client, client_id="service", sub="service")
        drawn = await _decided_and_drawn(api, client, images)
    how = {"name": "corrections", "licence": "none", "by": "engineer", "project": "spine"}
    labels.write(tmp_path / "labels", drawn, rule=ConsentRule.PERMITTED, basis="Consent", **how)

    folder, version = _laid_out(tmp_path / "labels", images, tmp_path / "discs")

    out = tmp_path / "run"
    trained(folder, version, out, architecture="disc-sequence", steps=2, checkpoint_every=2, precision="bf16")
    _packaged(out, tmp_path / "package", version)


async def _decided_and_drawn(api: Api, client: httpx.AsyncClient, images: Path) -> labels.Drawn:
    """Two patients whose results were signed, one of them corrected; labels and images under one project's key."""
    contents: list[tuple[str, bytes]] = []
    for number, name in enumerate(("pat-one", "pat-two"), start=1):
        study = await study_of(api, patient_of(name), str(number))
        await api.create(research_consent(f"Patient/{name}"))
        change = {("F01", "L4-L5"): "extrusion", ("F06", "L4-L5"): "5"} if number == 1 else {}
        await decide(api, study, "amend" if change else "verify", change)
        drawn = phantom(number, 3)
        series = mr_series(drawn.pixels, drawn.affine_lps, StudyInstanceUID=study.study_instance_uid,
                           SeriesInstanceUID=f"{study.study_instance_uid}.1", PatientID=name)  # fmt: skip
        contents += [(name, _bytes(instance)) for instance in series]
    project = Project("spine", Profile(Options.of([], [])), KEY)
    report = None
    for name in ("pat-one", "pat-two"):
        own = [content for whose, content in contents if whose == name]
        subject = Subject("Patient", name)
        report = deidentify_all(own, images, project, lambda _, subject=subject: subject, lambda _: None, report)
    assert report is not None
    assert report.written == 6, report.held_back
    write_report(images, report_content(report, project, datetime.now(UTC)))
    transport = client._transport
    reader = httpx.AsyncClient(
        transport=transport, headers=bearer(labels.SCOPES, sub="engineer", client_id="foramen-cli")
    )
    return await labels.draw(FhirClient(f"{ORIGIN}/fhir", reader), KEY, ConsentRule.PERMITTED, date(2026, 11, 1))


def _bytes(instance: Dataset) -> bytes:
    content = io.BytesIO()
    dcmwrite(content, instance, enforce_file_format=True)
    return content.getvalue()


def _laid_out(drawn: Path, images: Path, folder: Path) -> tuple[Path, DatasetVersion]:
    from typer.testing import CliRunner

    from foramen.cli import app

    arguments = [
        "dataset",
        "discs",
        folder,
        "--labels",
        drawn,
        "--images",
        images,
        "--licence",
        "none",
        "--by",
        "dr-li",
    ]
    done = CliRunner().invoke(app, [*map(str, arguments), "--kept-aside", "0.4"])
    assert done.exit_code == 0, done.output
    version = load(next((folder / ".dataset-versions").glob("*.json")))
    assert compare(folder, version).none
    one, two = (KEY.pseudonym("Patient", name) for name in ("pat-one", "pat-two"))
    assert {file.patient for file in version.files} == {one, two, None}
    corrected = read_table(folder / path_of(one, KEY.uid("1.2.826.0.1.3680043.8.498.77.1.1")))
    assert len(corrected.truth) >= 5
    # L5-S1 as the model had it (grade 3, bulge), L4-L5 as the person set it (5, an extrusion), of the rest nothing.
    nan = float("nan")
    assert np.array_equal(corrected.truth[:2], [[1, 1, 0, 0, 1, 0, nan], [1, 1, 1, 1, nan, 1, nan]], equal_nan=True)
    assert np.isnan(corrected.truth[2:]).all()
    assert corrected.patches[:, 1].max() > 0.9  # the disc is outlined in its patch
    assert version.deidentification is not None
    _refuses_what_is_not_deidentified(drawn, images)
    return folder, version


def _refuses_what_is_not_deidentified(drawn: Path, images: Path) -> None:
    sources = layout.sources_of(drawn, images)
    path = next(images.rglob("*.dcm"))
    content, instance = path.read_bytes(), dcmread(path)
    instance.PatientIdentityRemoved = "NO"
    instance.save_as(path)
    from ai_services.pipelines.lumbar_mr.infer import load_networks

    with pytest.raises(DatasetError, match="not de-identified"):
        layout.lay_out(sources, load_networks())
    path.write_bytes(content)
    row = next(drawn.rglob("labels.jsonl"))
    kept = row.read_text()
    row.write_text(kept.replace('"code": "5"', '"code": "4"').replace('"3"', '"2"'))
    with pytest.raises(DatasetError, match="changed after they were drawn"):
        layout.sources_of(drawn, images)
    row.write_text(kept)


def _packaged(run: Path, package: Path, version: DatasetVersion) -> None:
    from ai_services.training.packaging.package import Order, make_package, run_weights

    base = package_folder("lumbar_mr")
    make_package(Order(base, "9.0.0", "grading", "dr-li"), package, run_weights(run), signer(package.parent / "home"))
    made, released = read_package(package), load_manifest("lumbar_mr")
    assert made.models["segmentation"].identity.sha256 == released.models["segmentation"].identity.sha256
    assert made.models["grading"].identity.sha256 != released.models["grading"].identity.sha256
    card = (package / "MODEL_CARD.md").read_text()
    assert version.digest in card
    assert "0.25 of the new one" in card
    from ai_services.pipelines.lumbar_mr.infer import networks_of

    before, after = networks_of(released), networks_of(made)
    patches = np.random.default_rng(0).random((6, 5, 96, 128), dtype=np.float32)
    features = np.zeros((6, next(n.shape[1] for n in before._grading.get_inputs() if n.name == "features")), np.float32)
    moved = after.grade_features(features, patches) - before.grade_features(features, patches)
    assert np.abs(moved[:, :7]).max() > 0.01
    assert np.abs(moved[:, 7:]).max() < 1e-5


def test_a_recipe_of_a_grader_is_read_back_from_its_run() -> None:
    import dataclasses

    recipe: Recipe = recipe_of({**RECIPE, "architecture": "resnet"})
    assert recipe_of(json.loads(json.dumps(dataclasses.asdict(recipe)))).digest == recipe.digest
