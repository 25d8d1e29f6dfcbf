"""The journey of a model by the commands that a person types: from data to release, back, and to its recall.

Trained on SYNTHETIC phantoms for a moment: it recognises nothing, which its shadow run says. What a version writes is
written under its name by the builder of predictions, into a real record over HTTP.
docs/how-to/train_a_model.md, docs/how-to/manage_models.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from ai_services.models.registry import load_manifest, read_package
from ai_services.models.stages import CHECKLIST
from ai_services.models.versions import ModelRegistry
from ai_services.pipelines.lumbar_mr import pipeline
from ai_services.prediction import PipelineError
from ai_services.recommendation.rule_base import load_rule_base
from ai_services.results.bundle import ClinicalInputs, build_results
from ai_services.results.context import models_version
from ai_services.results.publish import publish_transaction
from foramen import cli
from foramen.identity.oauth.operator_token import operator_token
from foramen.kernel.fhir_client import FhirClient
from foramen.kernel.settings import Settings, get_settings
from foramen.supervisor.ports import free_port
from tests.builders.mr_series import mr_series
from tests.builders.patience import patience
from tests.builders.prediction import prediction, run_context
from tests.builders.training_data import labelled_phantoms, phantom

pytestmark = [pytest.mark.training, pytest.mark.timeout(600)]
VERSION = "9.0.0"
BUILT_IN = load_manifest("lumbar_mr").version
WHO = ("--by", "dr-li", "--reason", "SYNTHETIC journey")
RECIPE = {
    "name": "journey",
    "architecture": "unet",
    "options": {"channels": [4, 8, 16], "strides": [2, 2], "num_res_units": 1},
    "crop": [64, 64],
    "batch": 2,
    "steps": 40,
    "precision": "fp32",
    "checkpoint_every": 5,
    "evaluate_every": 40,
}


@dataclass
class World:
    """An installation: its folder, its database and its web process."""

    settings: Settings
    database_url: str
    log: Path

    @property
    def environment(self) -> dict[str, str]:
        own = {"HOME": self.settings.home, "DATABASE_URL": self.database_url, "PORT": self.settings.port}
        return {**os.environ, "OMP_NUM_THREADS": "1", **{f"FORAMEN_{key}": str(value) for key, value in own.items()}}

    def process(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """A command in a process group of its own, that can be killed."""
        command = [sys.executable, "-m", "foramen", *map(str, arguments)]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)


@pytest.fixture
def world(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The record as `foramen migrate` and `foramen serve` make it."""
    home = tmp_path / "home"
    home.mkdir()
    made = World(Settings(home=home, port=free_port(), database_url=database_url), database_url, tmp_path / "log")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    assert CliRunner().invoke(cli.app, ["migrate"]).exit_code == 0
    web = made.process("serve", "--only", "fhir")
    deadline = time.monotonic() + patience(60)
    try:
        while not _ready(made.settings):
            assert web.poll() is None, made.log.read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield made
    finally:
        web.terminate()
        web.wait(30)
        get_settings.cache_clear()


def _ready(settings: Settings) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{settings.origin}/readyz", timeout=5).status_code == 200
    return False


def run(*arguments: str | Path) -> str:
    """A command that has to succeed; gives what it printed."""
    done = CliRunner().invoke(cli.app, [str(item) for item in arguments])
    assert done.exit_code == 0, (arguments, done.output, done.exception)
    return done.stdout


def refused(*arguments: str | Path) -> str:
    """A command that has to be refused; gives its words on one line, without the frame they are printed in."""
    done = CliRunner().invoke(cli.app, [str(item) for item in arguments])
    assert done.exit_code != 0, done.output
    return re.sub(r"[\s│╭╮╰╯─]+", " ", done.output)


def test_a_model_is_trained_killed_resumed_packaged_released_rolled_back_and_recalled(
    world: World, tmp_path: Path
) -> None:
    run("--help")  # so that what commands import is not part of the first one's time
    folder = labelled_phantoms(tmp_path / "data", slices=1)
    made = run("dataset", "create", folder, "--name", "phantoms", "--licence", "none", "--source", "SYNTHETIC",
               "--by", "dr-li")  # fmt: skip
    manifest = Path(made.split("version ")[1].split(": ", 1)[1].replace("\n", ""))
    run("dataset", "verify", folder, manifest)

    out = _trained_and_killed(world, tmp_path, folder, manifest)
    package = _packaged(tmp_path, out)
    _released(world, package, tmp_path)
    _recalled(world, tmp_path, asyncio.run(_spoken(world)))


def _trained_and_killed(world: World, tmp_path: Path, folder: Path, manifest: Path) -> Path:
    """Train, kill -9 in the middle, go on; the numbers are those of a run that nobody killed."""
    recipe, straight, out = tmp_path / "recipe.yaml", tmp_path / "straight", tmp_path / "run"
    recipe.write_text(yaml.safe_dump(RECIPE))
    train = ("train", recipe, "--data", folder, "--manifest", manifest, "--threads", "1")
    _kill_at(world, world.process(*train, "--out", out), out / "checkpoints" / "00000005.pt")
    assert "is not finished" in refused("model", "package", out, tmp_path / "early", "--version", VERSION, "--by", "x")
    assert not (tmp_path / "early").exists()
    assert '"step": 40' in run(*train, "--out", out)
    # Nobody answers there: the training does not mind.
    dead = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    done = CliRunner().invoke(cli.app, [str(item) for item in (*train, "--out", straight, "--tracking", dead)])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "does not know all of this run" in done.stderr
    assert dead not in (straight / "log.txt").read_text()
    assert len(losses(straight)) == 40
    assert losses(out) == losses(straight)
    record = json.loads((out / "run.json").read_text())
    assert [session["from_step"] > 0 for session in record["sessions"]] == [False, True]
    assert "已完成 · Finished" in (out / "curves.html").read_text()
    _tracked(world, out)
    return out


def _tracked(world: World, out: Path) -> None:
    """The store knows the whole run, though the first start of it was killed."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{world.settings.home / 'training' / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'journey'")
    (kept,) = client.search_runs([experiment.experiment_id])
    assert kept.info.status == "FINISHED"
    assert kept.data.params["options.channels"] == "[4, 8, 16]"
    record = json.loads((out / "run.json").read_text())
    assert kept.data.tags["foramen.dataset"].endswith(record["dataset"]["digest"])
    assert kept.data.tags["foramen.code"] == record["sessions"][-1]["code"]
    told = {item.step: item.value for item in client.get_metric_history(kept.info.run_id, "loss")}
    assert told == losses(out)
    assert {item.path for item in client.list_artifacts(kept.info.run_id)} == {"run.json", "steps.jsonl", "curves.html"}


def _kill_at(world: World, process: subprocess.Popen[bytes], checkpoint: Path) -> None:
    deadline = time.monotonic() + patience(120)
    while not checkpoint.exists():
        assert process.poll() is None, world.log.read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def losses(out: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (out / "steps.jsonl").read_text().splitlines() if line.endswith("}")]
    return {line["step"]: line["loss"] for line in lines}


def _packaged(tmp_path: Path, out: Path) -> Path:
    package = tmp_path / "package"
    run("model", "package", out, package, "--version", VERSION, "--by", "dr-li")
    made = read_package(package)
    assert made.models["grading"].identity.sha256 == load_manifest("lumbar_mr").models["grading"].identity.sha256
    assert (
        made.models["segmentation"].identity.sha256 != load_manifest("lumbar_mr").models["segmentation"].identity.sha256
    )
    card, checklist = (package / "MODEL_CARD.md").read_text(), (package / "RELEASE_CHECKLIST.md").read_text()
    record = json.loads((out / "run.json").read_text())
    assert record["dataset"]["digest"] in card
    assert made.models["segmentation"].identity.sha256 in card
    assert "SYNTHETIC" in card
    assert all(f"--confirm {item}" in checklist for item in CHECKLIST)
    assert "is there already" in refused("model", "package", out, package, "--version", VERSION, "--by", "dr-li")
    return package


def _released(world: World, package: Path, tmp_path: Path) -> None:
    # Somebody changed the package on its way: its own hashes fit, the signature does not.
    changed = shutil.copytree(package, tmp_path / "changed")
    text = (changed / "manifest.yaml").read_text().replace("temperature: 1.0429", "temperature: 9.0")
    (changed / "manifest.yaml").write_text(text + "\n# changed\n")
    assert "not the one that was signed" in refused("model", "register", changed, *WHO)
    ModelRegistry(world.database_url, world.settings.home).take_in_what_came_with_the_software()
    assert "is a candidate" in run("model", "register", package, *WHO)
    run("model", "promote", VERSION, "--to", "shadow", *WHO)
    _shadowed(world)
    told = json.loads(run("model", "shadow", VERSION))
    assert (told["studies"], told["declined"]) == (1, 1)
    assert CHECKLIST[0] in refused("model", "promote", VERSION, *WHO)
    confirmed = [word for item in CHECKLIST for word in ("--confirm", item)]
    assert "is released" in run("model", "promote", VERSION, *WHO, *confirmed)


def _shadowed(world: World) -> None:
    """What the worker does beside a result: the shadow sees the same series, and how it differs is kept."""
    registry = ModelRegistry(world.database_url, world.settings.home)
    shadow = registry.version("lumbar_mr", VERSION)
    drawn = phantom(20, 9)
    series = mr_series(drawn.pixels, drawn.affine_lps)
    with pytest.raises(PipelineError) as declined:
        pipeline.run(series, registry.open(shadow))
    told = {"declined": declined.value.reason_code}
    assert told["declined"] != "model-integrity"
    registry.record_shadow("run-1", shadow, BUILT_IN, str(series[0].StudyInstanceUID), told)


async def _spoken(world: World) -> str:
    """The current release speaks for a study: its results are written as the worker writes them."""
    registry = ModelRegistry(world.database_url, world.settings.home)
    current = registry.current("lumbar_mr")
    assert current is not None
    assert current.version == VERSION
    models = tuple(file.identity for file in registry.open(current).models.values())
    said = replace(prediction(), models=models)
    token = operator_token(world.settings, world.database_url, "system/*.cruds")
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60) as http:
        fhir = FhirClient(f"{world.settings.origin}/fhir", http)
        patient = {"resourceType": "Patient", "id": "journey", "gender": "male", "birthDate": "1970-01-01"}
        images = {"resourceType": "ImagingStudy", "id": "journey", "status": "available",
                  "subject": {"reference": "Patient/journey"}}  # fmt: skip
        for resource in (patient, images):
            url = f"{world.settings.origin}/fhir/{resource['resourceType']}/journey"
            assert (await http.put(url, json=resource)).status_code == 201
        context = run_context(
            pipeline_version=models_version(said.models),
            imaging_study="ImagingStudy/journey",
            patient="Patient/journey",
        )
        inputs = ClinicalInputs(patient, [], context.recorded_at.date())
        bundle = build_results(said, context, inputs, load_rule_base())
        report = await publish_transaction(fhir, bundle, "DiagnosticReport", context.urn("report"))
        assert (await fhir.read(report))["status"] == "partial"
    return report


def _recalled(world: World, tmp_path: Path, report: str) -> None:
    assert f"lumbar_mr {BUILT_IN} is released" in run("model", "rollback", *WHO)
    looked = run("model", "recall", VERSION, *WHO, "--look")
    assert "nothing marked" in looked
    listed = tmp_path / "list.json"
    told = run("model", "recall", VERSION, *WHO, "--out", listed)
    assert told.startswith("1 runs; ")
    document = json.loads(listed.read_text())
    assert {item["resource"] for item in document["marked"]} >= {report}
    assert any(report in references for references in document["seen_by"].values())
    token = operator_token(world.settings, world.database_url, "system/*.rs")
    answer = httpx.get(f"{world.settings.origin}/fhir/{report}", headers={"Authorization": f"Bearer {token}"})
    assert answer.json()["status"] == "cancelled"
    assert "MODEL-RECALLED" in {tag["code"] for tag in answer.json()["meta"]["tag"]}
    assert "can become nothing" in refused("model", "promote", VERSION, "--to", "shadow", *WHO)
    history = run("model", "list", "--history")
    assert [word in history for word in ("shadow", "released", "retired", "recalled")] == [True] * 4
