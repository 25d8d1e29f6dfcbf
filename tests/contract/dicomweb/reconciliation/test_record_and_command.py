"""An ImagingStudy changed or deleted in the record, and `foramen reconcile`, which compares both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dicomweb.reconciliation.decisions import confirm
from dicomweb.reconciliation.kinds import KINDS
from tests.builders.dicom import series
from tests.contract.dicomweb.conftest import Gateway
from tests.contract.dicomweb.reconciliation.three_places import (
    TRACE,
    WHO,
    drift_id,
    gone_from_orthanc,
    kinds,
    quiet,
    truth,
)


async def test_an_imaging_study_changed_in_the_record_is_set_right_and_a_deleted_one_waits(gateway: Gateway, rows: Any):
    await gateway.add_patient("PIR-61", "pir61")
    images = series(2, seed=506, patient_id="PIR-61")
    study = str(images[0].StudyInstanceUID)
    await gateway.store(*images)
    await gateway.register(study)
    await quiet(gateway, rows)
    await gateway.service.watch.look()
    (right,) = await gateway.imaging_studies(study)
    note = [{"text": "seen SYNTHETIC"}]
    await gateway.record.update(right | {"numberOfInstances": 7, "note": note})
    assert await gateway.service.watch.look() >= 1

    async def set_right() -> bool:
        return (await gateway.imaging_studies(study))[0]["numberOfInstances"] == 2

    await gateway.until(set_right)
    await quiet(gateway, rows)
    (resource,) = await gateway.imaging_studies(study)
    assert resource["note"] == note  # What others added stays.
    await gateway.record._request("DELETE", f"ImagingStudy/{resource['id']}")
    assert await gateway.service.watch.look() >= 1

    async def noticed() -> bool:
        return (await kinds(rows, study)).get("record-deleted") == "open"

    await gateway.until(noticed)
    await quiet(gateway, rows)
    assert await gateway.imaging_studies(study) == []
    async with rows.transaction():
        await confirm(rows, await drift_id(rows, study, "record-deleted"), set(), WHO, TRACE)
    await gateway.register(study)
    assert (await truth(gateway, study))["counts"] == (2, 2, 2)
    assert await kinds(rows, study) == {"record-changed": "mended", "record-deleted": "confirmed"}


async def test_the_command_compares_both_ways_mends_and_tells(
    gateway: Gateway, rows: Any, command: Any, tmp_path: Path
):
    await gateway.add_patient("PIR-91", "pir91")
    lost_row, changed, lost_file = (series(1, seed=seed, patient_id="PIR-91")[0] for seed in (509, 510, 511))
    uids = [str(one.StudyInstanceUID) for one in (lost_row, changed, lost_file)]
    for one, uid in zip((lost_row, changed, lost_file), uids, strict=True):
        await gateway.store(one)
        await gateway.register(uid)

    await quiet(gateway, rows)
    for uid in uids:
        assert (await command("--study", uid))[0] == 0
    await rows.execute("DELETE FROM dicomweb.study WHERE study_instance_uid = $1", uids[0])
    (resource,) = await gateway.imaging_studies(uids[1])
    await gateway.record.update(resource | {"description": "changed by somebody SYNTHETIC"})
    gone_from_orthanc(gateway, lost_file)

    status, output = await command("--anew", "--format", "json")
    found = {one["study"]: one["kind"] for one in json.loads(output)["differences"]}
    assert status == 3, output
    assert [found[uid] for uid in uids] == ["not-indexed", "record-changed", "missing-in-archive"]
    assert await kinds(rows, uids[2]) == {}  # Without --mend nothing is changed, nor written down.

    status, output = await command("--anew", "--mend")
    assert status == 3, output
    for uid in uids[:2]:
        assert (await truth(gateway, uid))["counts"] == (1, 1, 1)
    assert (await kinds(rows, uids[0])) == {"not-indexed": "mended"}
    assert (await kinds(rows, uids[1])) == {"record-changed": "mended"}
    assert (await command("--study", uids[2], "--mend"))[0] == 3
    number = await drift_id(rows, uids[2], "missing-in-archive")
    assert (await command("--confirm", str(number)))[0] == 2
    assert (await command("--confirm", str(number), "--user", "nobody-such"))[0] == 1
    async with rows.transaction():
        await confirm(rows, number, set(), WHO, TRACE)
    await gateway.register(uids[2])
    assert (await command("--study", uids[2]))[0] == 0
    status, output = await command("--report", "--format", "html", "--folder", str(tmp_path))
    pages = [(tmp_path / name).read_text() for name in ("drift.html", "drift.en.html")]
    assert all(uids[2] in page and "archivist" in page for page in pages)
    assert "已确认" in pages[0]
    assert "Confirmed" in pages[1]


async def test_an_interrupted_comparison_goes_on_where_it_stopped(gateway: Gateway, rows: Any, command: Any):
    await rows.execute("INSERT INTO dicomweb.comparison (phase, position, studies) VALUES ('index', '9', 41)")
    await command()
    query = "SELECT studies, ended_at FROM dicomweb.comparison ORDER BY id DESC LIMIT 1"
    studies, ended = await rows.fetchrow(query)
    assert studies == 41  # Nothing of before is looked at again: no UID comes after 9.
    assert ended is not None


def test_kinds_have_words_in_both_languages() -> None:
    assert all(kind.zh and kind.en and kind.code == code for code, kind in KINDS.items())
