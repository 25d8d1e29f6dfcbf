"""What an operator types: move, compress, offload, verify, recall, capacity."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner, Result

from foramen.cli import app
from tests.builders.s3_server import S3Server
from tests.contract.dicomweb.conftest import Gateway
from tests.contract.dicomweb.lifecycle.files import files_in, plain_files


async def test_the_commands_move_compress_and_count_what_was_saved(
    gateway: Gateway,
    stored: Any,
    tmp_path: Path,
    module_database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    s3: S3Server,
):
    study, _, names = stored
    settings = gateway.orthanc.settings.model_copy(
        update={
            **s3.settings,
            **{"nearline_s3_after_days": 365},
            **{"database_url": module_database_url, "nearline_folder": tmp_path / "nearline"},
            **{"nearline_states": "registered,on-hold,stored", "nearline_compress_after_days": 365},
        }
    )
    monkeypatch.setattr("foramen.commands.lifecycle.get_settings", lambda: settings)
    with psycopg.connect(module_database_url) as connection:
        connection.execute("DELETE FROM dicomweb.nearline_file")

    def aged(*arguments: str) -> Result:
        with psycopg.connect(module_database_url) as connection:  # Each time: the intake may still be at the study.
            connection.execute(
                "UPDATE dicomweb.study SET study_date = '20200101', updated_at = '2020-01-02'"
                " WHERE study_instance_uid = %s",
                (study,),
            )
        return CliRunner().invoke(app, list(arguments))

    async def run(*arguments: str) -> str:
        done = await asyncio.to_thread(aged, *arguments)
        assert done.exit_code == 0, done.output
        return done.output

    async def when_due(*arguments: str) -> str:
        said = ""
        for _ in range(5):
            said = await run(*arguments)
            if "0 studies due" not in said:
                break  # Else the intake was at the study just now.
        return said

    assert "1 studies due; 2 files moved" in await when_due("lifecycle", "move")
    assert "1 studies due; 0 files compressed" in await when_due("lifecycle", "compress", "--dry")
    assert "1 studies due; 2 files compressed, 0 kept as is" in await when_due("lifecycle", "compress")
    assert "0 studies due" in await run("lifecycle", "compress")
    assert not plain_files(tmp_path, names)
    packed = files_in(tmp_path)
    assert "1 studies due; 2 files in the bucket now" in await when_due("lifecycle", "offload")
    assert "0 studies due" in await run("lifecycle", "offload")
    assert (files_in(tmp_path), len(s3.keys()), len(packed)) == ([], 2, 2)
    said = await run("capacity", "--per-day", "MR=1", "--folder", str(tmp_path / "capacity"))
    assert "(saved: 2 files" in said
    assert "(saved: 2 files" in (tmp_path / "capacity" / "capacity.html").read_text(encoding="utf-8")
    assert "good" in await run("lifecycle", "verify")
    assert "2 files" in await run("lifecycle", "recall", study)
    assert s3.keys() == []
    assert [path for path in (tmp_path / "nearline").rglob("*") if path.is_file()] == []
