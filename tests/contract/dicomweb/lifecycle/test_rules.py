"""Which studies are due: by age, last access and state."""

from __future__ import annotations

from datetime import date
from typing import Any

import psycopg

from dicomweb.lifecycle.last_access import LastAccess
from dicomweb.lifecycle.nearline import Attachment
from dicomweb.lifecycle.packed_files import PackedFiles
from dicomweb.lifecycle.rules import TierRules, attachment, due, to_pack
from tests.contract.dicomweb.conftest import Gateway
from tests.contract.dicomweb.lifecycle.files import RULES


async def test_old_registered_studies_are_due_and_young_or_waiting_ones_are_not(
    stored: Any, module_database_url: str, gateway: Gateway
):
    study, ids, names = stored
    today = date(2026, 11, 22)
    with psycopg.connect(module_database_url) as connection:
        old = (
            "UPDATE dicomweb.study SET study_date = '20200101', updated_at = '2020-01-02', state = %s"
            " WHERE study_instance_uid = %s"
        )
        connection.execute(old, ("on-hold", study))
        assert study not in dict(due(connection, today, RULES))
        assert study in dict(due(connection, today, TierRules(365, states=("registered", "on-hold"))))
        connection.execute(old, ("registered", study))
        assert sorted(dict(due(connection, today, RULES))[study]) == sorted(ids)
        assert study not in dict(due(connection, today, TierRules(365 * 20)))
        connection.rollback()
    with gateway.orthanc.client() as client:
        assert attachment(client, study, ids[0]) == Attachment(names[0], study)
        assert attachment(client, study, "0" * 8) is None


async def test_a_study_that_somebody_reads_stays_online_and_what_was_unpacked_stays_unpacked(
    gateway: Gateway, stored: Any, packing: PackedFiles, module_database_url: str
):
    study, *_ = stored
    today = date(2026, 11, 22)
    accesses: LastAccess = gateway.service._audit.accesses
    assert (await gateway.get(f"/studies/{study}", scope="patient/ImagingStudy.r", patient="x")).status_code == 404
    await accesses.flush()  # Of other tests; a refusal is no access.
    assert study not in accesses._written
    with psycopg.connect(module_database_url) as connection:
        connection.execute(
            "UPDATE dicomweb.study SET study_date = '20200101', updated_at = '2020-01-02', state = 'registered'"
            " WHERE study_instance_uid = %s",
            (study,),
        )
        assert study in dict(to_pack(connection, today, RULES))
        assert study not in dict(to_pack(connection, today, TierRules(365)))  # Never, by that rule.
        for _ in range(3):
            assert (await gateway.get(f"/studies/{study}/metadata")).status_code == 200
        assert await accesses.flush() == 1
        assert (await gateway.get(f"/studies/{study}/metadata")).status_code == 200
        assert await accesses.flush() == 0  # At most once an hour.
        assert study not in dict(to_pack(connection, today, RULES))
        connection.execute("DELETE FROM dicomweb.nearline_file WHERE study_instance_uid = %s", (study,))
        assert study not in dict(due(connection, today, RULES))
        connection.execute(
            "UPDATE dicomweb.study_access SET accessed_at = now() - interval '91 days' WHERE study_instance_uid = %s",
            (study,),
        )
        assert study in dict(due(connection, today, RULES))
        connection.rollback()


async def test_a_study_that_has_moved_makes_room_for_the_next_one(
    gateway: Gateway, stored: Any, packing: PackedFiles, module_database_url: str
):
    study, *_ = stored
    await gateway.service._wado.files.fill(study)
    with psycopg.connect(module_database_url) as connection:
        connection.execute(
            "UPDATE dicomweb.study SET study_date = '20200101', updated_at = '2020-01-02', state = 'registered'"
            " WHERE study_instance_uid = %s",
            (study,),
        )
        assert study not in dict(due(connection, date(2026, 11, 22), RULES))
        connection.execute("DELETE FROM dicomweb.nearline_file WHERE study_instance_uid = %s", (study,))
        assert study in dict(due(connection, date(2026, 11, 22), RULES))
        connection.rollback()
