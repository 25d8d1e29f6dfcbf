"""`foramen subject …` against a server that `foramen serve` started: what a data protection officer does with it.

docs/how-to/subject_rights.md. All data SYNTHETIC.
"""

from __future__ import annotations

import asyncio
import json
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from foramen import cli
from foramen.identity.people.accounts import ensure_user
from foramen.kernel.settings import get_settings
from tests.contract.fhir.api import Api
from tests.contract.fhir.server_process import free_port
from tests.contract.fhir.subject_world import FAMILY, HIDDEN, NUMBER, record
from tests.contract.fhir.test_audit_commands import Installation, _environment, _wait

_PASSWORD = "a long SYNTHETIC password 7"
_PEOPLE = {"chief": "p", "chief-of-night": "p", "lawyer": "q"}
_WHY = "letter of 3 May, file 12"


@pytest.fixture(scope="module")
def installation(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Three accounts of two people, and a record."""
    home, port = tmp_path_factory.mktemp("installation"), free_port()
    log = home / "logs" / "web.log"
    log.parent.mkdir()
    environment = {**_environment(home, module_database_url, port), "FORAMEN_FHIR_JOB_POLL_S": "0.1"}
    with log.open("ab") as output:
        command = [sys.executable, "-m", "foramen", "serve", "--only", "fhir", "--migrate"]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    made = Installation(home, module_database_url, port, log, process)
    try:
        _wait(made)
        for name, practitioner in _PEOPLE.items():
            ensure_user(module_database_url, name, _PASSWORD, "system-administrator", practitioner)
        asyncio.run(_fill(made))
        yield made
    finally:
        process.terminate()
        process.wait(30)


async def _fill(made: Installation) -> None:
    with made.client("system/*.cruds") as client:
        headers = dict(client.headers)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{made.port}", timeout=30) as http:
        api = Api(http)
        api.headers["authorization"] = headers["authorization"]
        await record(api, "asks")


@pytest.fixture
def run(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give a command, without the seconds a process needs to start."""
    for name, value in installation.environment.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()

    def given(*arguments: str, user: str = "chief") -> Result:
        return CliRunner().invoke(cli.app, ["subject", *arguments, "--user", user])

    yield given
    get_settings.cache_clear()


def told(result: Result) -> list[dict[str, Any]]:
    """What a command printed."""
    assert result.exit_code == 0, (result.output, result.exception)
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def flat(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Names and values of parts."""
    return {name: value for part in parts for name, value in part.items()}


def one(result: Result, name: str) -> dict[str, Any]:
    """The only part of a name that a command printed."""
    (found,) = [part[name] for part in told(result) if name in part]
    return flat(found)


def says(result: Result) -> str:
    """How a command that the server refused ends: in words, without a stack trace."""
    assert result.exit_code != 0, result.output
    return f"{result.output} {result.exception}"


def test_a_copy_is_whole_and_lies_where_only_its_owner_reads_it(installation: Installation, run: Any, tmp_path: Path):
    folder = tmp_path / "copies" / "copy"
    done = run("export", "Patient/asks", str(folder), "--history")
    assert done.exit_code == 0, (done.output, done.exception)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    manifest = json.loads((folder / "manifest.json").read_text())
    more = manifest["extension"]
    names = {item["url"] for part in (manifest["output"], more["history"], more["accessLog"]) for item in part}
    assert {path.name for path in folder.iterdir()} == {*names, "manifest.json", "summary.html"}
    count = 0
    for item in manifest["output"]:
        lines = [json.loads(line) for line in (folder / item["url"]).read_text().splitlines()]
        assert {line["resourceType"] for line in lines} == {item["type"]}
        assert len(lines) == item["count"]
        count += len(lines)
    assert f"{count} resources" in done.output
    kinds = {item["type"] for item in manifest["output"]}
    assert {"Patient", "Observation", "Encounter", "ImagingStudy", "DocumentReference", "Binary"} <= kinds
    whole = "".join((folder / name).read_text() for name in sorted(names))
    assert FAMILY in whole
    assert HIDDEN in whole
    assert f"{FAMILY}old" in "".join((folder / item["url"]).read_text() for item in more["history"])
    assert more["accessLog"]
    assert "<html" in (folder / "summary.html").read_text()
    # Nothing of it stays on the server.
    deadline = time.monotonic() + 20
    while kept := [path for path in (installation.home / "bulk").rglob("*") if path.is_file()]:
        assert time.monotonic() < deadline, kept
        time.sleep(0.1)


def test_a_copy_is_not_mixed_with_what_was_there(run: Any, tmp_path: Path):
    """What a broken copy of another person left behind would be handed over with this one."""
    (tmp_path / "Observation.0000.ndjson.part").write_text("SYNTHETIC of another person\n")
    assert "not empty" in says(run("export", "Patient/asks", str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["Observation.0000.ndjson.part"]


def test_a_copy_is_its_owners_alone_in_a_folder_that_was_there(run: Any, tmp_path: Path):
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    done = run("export", "asks", str(folder))
    assert done.exit_code == 0, (done.output, done.exception)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_a_record_is_held_released_and_erased_by_two_people(installation: Installation, run: Any):
    held = one(
        run(
            "hold", "Patient/asks", "--reason", _WHY, "--basis", "Civil Procedure Law art. 84", "--until", "2099-01-01"
        ),
        "hold",
    )
    assert held["resource"] == {"reference": "Patient/asks"}
    assert held["until"].startswith("2099-01-0")
    assert one(run("holds", "Patient/asks", user="lawyer"), "hold")["placedBy"] == "chief"
    preview = flat(told(run("preview", "asks")))
    assert preview["decision"] == "erase"
    assert flat(preview["hold"])["id"] == held["id"]
    assert held["id"] in says(run("erase", "asks", "--reason", _WHY))
    assert told(run("status", "asks")) == []
    released = one(run("release", "Patient/asks", held["id"], "--reason", "the case is closed"), "hold")
    assert released["releasedBy"] == "chief"
    assert "No hold" in says(run("release", "Patient/asks", held["id"], "--reason", "again"))

    assert NUMBER not in (refused := says(run("erase", "asks", "--reason", f"of {NUMBER}")))
    assert "reason" in refused
    withdrawn = one(run("erase", "Patient/asks", "--reason", _WHY), "request")["id"]
    assert one(run("refuse", "asks", withdrawn, "--reason", "withdrawn"), "request")["status"] == "refused"
    request = one(run("erase", "asks", "--reason", _WHY), "request")["id"]
    for account in ("chief", "chief-of-night"):  # The same person, twice.
        assert "Another administrator" in says(run("approve", "asks", request, "--reason", "mine", user=account))
    approved = one(run("approve", "asks", request, "--reason", "checked", user="lawyer"), "request")
    assert approved["status"] == "approved"
    found = _ended(run, request)
    assert found["status"] == "erased", found
    assert (found["requestedBy"], found["decidedBy"]) == ("chief", "lawyer")
    assert flat(found["resources"])["Observation"] == 2
    with installation.client("system/*.cruds foramen/admin") as client:
        assert client.get("/Patient/asks").status_code == 404
        assert client.get(f"/{found['imagingTask']}").json()["input"][0]["valueUri"].startswith("urn:oid:")
    assert "not erased can be opened" in says(run("lift", "asks", request, "--reason", "again"))


def _ended(run: Any, request: str) -> dict[str, Any]:
    """The request, once its job has ended; it is asked again as a person would."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        requests = [flat(part["request"]) for part in told(run("status", "asks"))]
        (found,) = [item for item in requests if item["id"] == request]
        if found["status"] != "approved":
            return found
        time.sleep(0.3)
    raise AssertionError("the erasure does not end")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("preview", "nobody"), "Patient not found"),
        (("erase", "nobody", "--reason", _WHY), "Patient not found"),
        (("hold", "Patient/nobody", "--reason", _WHY, "--basis", "art. 84"), "Patient not found"),
        (("hold", "Observation/nobody", "--reason", _WHY, "--basis", "art. 84"), "name it as"),
        (("approve", "nobody", "none", "--reason", _WHY), "no such request"),
    ],
    ids=str,
)
def test_a_refusal_is_said_in_words(run: Any, arguments: tuple[str, ...], said: str):
    assert said in says(run(*arguments))


def test_an_account_that_is_not_there_answers_for_nothing(run: Any):
    assert "no such active account" in says(run("preview", "asks", user="nobody"))
