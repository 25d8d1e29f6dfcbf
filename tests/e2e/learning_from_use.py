"""Two analysed studies of a running installation: one is signed, labels are drawn, the other is queued, all is watched.

docs/how-to/learn_from_corrections.md, docs/how-to/watch_a_model.md; all data is SYNTHETIC.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from ai_services.models.versions import ModelRegistry
from ai_services.monitoring.run import observe
from ai_services.monitoring.scanner import ScannerLookup
from ai_services.monitoring.thresholds import read_thresholds
from ai_services.monitoring.watch import Watch
from ai_services.training.labels.draw import read
from foramen import cli
from foramen.demo.decision import verify_bundle
from foramen.identity.oauth.operator_token import operator_token
from foramen.kernel.fhir_client import FhirClient
from foramen.kernel.settings import get_settings
from foramen.supervisor.ports import free_port
from terminology.codes import ANNOTATE
from tests.builders.decisions import research_consent
from tests.builders.installation import Installation, wait_for
from tests.builders.model_package import model_package
from tests.builders.prediction import MODEL

FHIR = {"Content-Type": "application/fhir+json"}


def learn_from_use(system: Installation, studies: list[str], reports: list[dict[str, Any]], tmp_path: Path) -> None:
    """Walk the loop by the commands that a person types.

    Parameters
    ----------
    system : with a web process
    studies, reports : Study Instance UIDs of two studies, and their reports that nobody has decided on
    tmp_path : for what the commands write
    """
    with pytest.MonkeyPatch.context() as patch:
        for name, value in system.environment.items():
            if name.startswith("FORAMEN_"):
                patch.setenv(name, value)
        get_settings.cache_clear()
        try:
            _learn_from_use(system, studies, reports, tmp_path)
        finally:
            get_settings.cache_clear()


def _learn_from_use(system: Installation, studies: list[str], reports: list[dict[str, Any]], tmp_path: Path) -> None:
    decided, open_ = reports
    for report in (decided, open_):
        consent = research_consent(report["subject"]["reference"])
        assert system.http.post("/fhir/Consent", json=consent, headers=FHIR).status_code == 201
    password = "SYNTHETIC-long-enough-password\n"
    command("user", "add", "dr-labels", "--role", "physician", "--practitioner", "dr-labels", text=password)
    command("user", "add", "engineer-labels", "--role", "engineer", text=password)
    ids = ",".join(item["reference"].split("/")[1] for item in decided["result"])
    observations = system.search(f"Observation?_id={ids}&_count=100")
    signed = verify_bundle(decided, observations, "Practitioner/dr-labels", "x", "2026-11-22T10:00:00Z")
    token = operator_token(
        system.settings, system.database_url, "system/*.rs user/*.cruds", user="dr-labels", expires_in_s=600
    )
    answer = httpx.post(
        f"{system.settings.origin}/fhir", json=signed, headers={**FHIR, "Authorization": f"Bearer {token}"}
    )
    assert answer.status_code == 200, answer.text

    command("project", "add", "labels")
    draw = ["dataset", "labels", "draw", tmp_path / "labels", "--project", "labels", "--user", "engineer-labels"]
    draw += ["--licence", "SYNTHETIC"]
    assert "lacks the permission train" in command(*draw, status=2)
    assert not (tmp_path / "labels").exists()
    refusals = "AuditEvent?outcome=4&_sort=-date&_count=20"
    wait_for(
        lambda: any("permission train" in event.get("outcomeDesc", "") for event in system.search(refusals)),
        30,
        "the audit event of the refusal",
    )
    command("user", "grant", "engineer-labels", "train", "--reason", "SYNTHETIC")
    assert "1 reports, version" in command(*draw)
    rows = read(tmp_path / "labels")
    assert {row["verdict"] for row in rows} == {"agreed"}
    assert {row["model"]["sha256"] for row in rows} == {MODEL.sha256}
    assert studies[0] not in (tmp_path / "labels" / "about.json").read_text(encoding="utf-8")

    told = command("dataset", "queue", "--user", "engineer-labels")
    assert "1 of 1 candidates" in told
    assert "1 new" in told
    (task,) = system.search(f"Task?code={ANNOTATE.system}|{ANNOTATE.code}")
    assert task["focus"]["reference"] == f"DiagnosticReport/{open_['id']}"
    assert "0 new, 0 moved" in command("dataset", "queue", "--user", "engineer-labels")

    registry = ModelRegistry(system.database_url, system.settings.home)
    registry.register(model_package(tmp_path / "never", "8.0.0"), "dr-li", "SYNTHETIC")
    page = tmp_path / "watch.html"
    # No server there: that is neither an alarm nor "too few".
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_PORT", str(free_port()))
        get_settings.cache_clear()
        assert "does not answer" in command("model", "watch", "8.0.0", status=2)
    get_settings.cache_clear()
    # A version that wrote nothing: that is too few to tell, which the exit status says, and never "no drift".
    assert "too-few" in command("model", "watch", "8.0.0", "--page", page, status=3)
    assert "无法全部判断" in page.read_text(encoding="utf-8")
    assert "says so already" in command("model", "watch", "8.0.0", status=3)
    reference = ("model", "reference", "8.0.0", tmp_path / "reference.json", "--since", "2026-01-01")
    command(*reference, "--until", "2026-02-01", status=3)
    assert not (tmp_path / "reference.json").exists()

    async def scanners() -> Watch:
        headers = {"Authorization": system.http.headers["Authorization"]}
        origin = system.settings.origin
        async with httpx.AsyncClient(headers=headers) as http:
            fhir, archive = FhirClient(f"{origin}/fhir", http), ScannerLookup(http, f"{origin}/dicom-web")
            model = ("lumbar_mr", "x", [MODEL.sha256])
            limits = replace(read_thresholds(), cell=2, patients=2)
            return await observe(fhir, archive, model, ("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"), None, limits)

    # The archive names the scanner of the series that the result was made from.
    assert "SYNTHETIC" in asyncio.run(scanners()).groups["scanner"]


def command(*arguments: str | Path, status: int = 0, text: str | None = None) -> str:
    """Run a command of ours; what it raises is raised, and its exit status is the expected one."""
    if text is not None:
        arguments = (*arguments, "--password-stdin")
    done = CliRunner().invoke(cli.app, [str(item) for item in arguments], input=text)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == status, (arguments, done.output)
    return done.output
