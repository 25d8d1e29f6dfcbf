"""`foramen package install|list|remove` on a real database."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from foramen.commands.package import app
from foramen.kernel.settings import get_settings
from tests.conftest import TEST_DATA
from tests.contract.fhir.api import Api, patient_resource, running

pytestmark = pytest.mark.fhir_definitions
IPA_FILE = TEST_DATA.parent / "fhir" / "ipa_v100.tgz"


@pytest.fixture
def command(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[CliRunner]:
    monkeypatch.setenv("FORAMEN_DATABASE_URL", database_url)
    get_settings.cache_clear()
    yield CliRunner()
    get_settings.cache_clear()


def test_install_list_and_remove(command: CliRunner) -> None:
    done = command.invoke(app, ["install", str(IPA_FILE)])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output) == {"name": "hl7.fhir.uv.ipa", "version": "1.0.0", "resources": 16}
    assert command.invoke(app, ["install", str(IPA_FILE)]).exit_code == 0  # Replaced.
    (row,) = json.loads(command.invoke(app, ["list"]).output)
    assert (row["name"], row["version"], row["resources"]) == ("hl7.fhir.uv.ipa", "1.0.0", 16)
    assert row["canonical"] == "http://hl7.org/fhir/uv/ipa"
    assert command.invoke(app, ["remove", "hl7.fhir.uv.ipa#9.9.9"]).exit_code == 1
    assert json.loads(command.invoke(app, ["remove", "hl7.fhir.uv.ipa"]).output) == {"removed": 1}
    assert json.loads(command.invoke(app, ["list"]).output) == []


def test_a_bad_file_installs_nothing(command: CliRunner) -> None:
    bad = TEST_DATA.parent / "fhir" / "README.md"
    assert command.invoke(app, ["install", str(IPA_FILE), str(bad)]).exit_code != 0
    assert json.loads(command.invoke(app, ["list"]).output) == []


async def test_the_server_finds_what_the_command_installed(database_url: str) -> None:
    import asyncpg

    from fhir_server.packages.archive import PackageLimits
    from fhir_server.packages.install import prepare
    from fhir_server.store import packages

    url = "http://hl7.org/fhir/uv/ipa/StructureDefinition/ipa-patient"
    claim = {"meta": {"profile": [url]}, "resourceType": "Patient", "name": patient_resource()["name"]}
    async with running(database_url) as (_, http):
        api = Api(http)
        package = prepare(IPA_FILE.read_bytes(), PackageLimits(1000, 100_000_000))
        connection = await asyncpg.connect(database_url)
        await packages.install(connection, package.name, package.version, package.canonical, package.resources)
        found = (await api.post(f"/fhir/Patient/$validate?profile={url}|1.0.0", claim)).json()["issue"]
        assert ("error", "Patient.identifier") in {(i["severity"], i.get("expression", [""])[0]) for i in found}
        assert await packages.remove(connection, package.name) == 1
        await connection.close()
        assert (await api.post(f"/fhir/Patient/$validate?profile={url}", claim)).status_code == 400
