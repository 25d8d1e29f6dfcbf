"""What a thread that stores asks the database: right answers, to the right question, whatever ends in between."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from dicomweb.dimse.index_questions import IndexQuestions
from foramen.kernel.errors import UpstreamError
from foramen.supervisor.ports import free_port

INDEXED, REJECTED, NEW = "2.25.1", "2.25.2", "2.25.3"
FATES = {INDEXED: (False, True), REJECTED: (True, False), NEW: (False, False)}


@pytest.fixture(scope="module")
def database_url(module_database_url: str) -> str:
    with psycopg.connect(module_database_url) as connection:
        connection.execute("SET session_replication_role = replica")  # no study, no rejection needed
        connection.execute(
            """INSERT INTO dicomweb.instance (study_instance_uid, series_instance_uid, sop_instance_uid, orthanc_id,
                   transfer_syntax_uid, frames, attributes, metadata)
               VALUES ('2.25', '2.25', %s, 'a', '1.2.840.10008.1.2.1', 1, '{}', '')""",
            (INDEXED,),
        )
        connection.execute(
            """INSERT INTO dicomweb.rejected_instance (sop_instance_uid, study_instance_uid, series_instance_uid,
                   rejection, code) VALUES (%s, '2.25', '2.25', 1, '113001')""",
            (REJECTED,),
        )
    return module_database_url


@pytest.fixture
def questions(database_url: str) -> Iterator[IndexQuestions]:
    made = IndexQuestions(database_url)
    yield made
    made.close()


def end_all_connections(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()"""
        )


def test_each_question_gets_its_own_answer(questions: IndexQuestions) -> None:
    under_way = {uid: questions.ask_fate(uid) for uid in FATES}
    assert {uid: under_way[uid].answer() for uid in reversed(FATES)} == FATES
    assert questions.count() == 1


def test_an_answer_nobody_takes_is_not_the_next_one_s(questions: IndexQuestions) -> None:
    assert questions.ask_fate(INDEXED).answer() == FATES[INDEXED]  # its connection waits for the next question
    for uid in (INDEXED, REJECTED):
        dropped = questions.ask_fate(uid)
        dropped.drop()
        dropped.drop()
        assert questions.ask_fate(NEW).answer() == FATES[NEW]


def test_connections_that_the_server_ended_are_replaced(questions: IndexQuestions, database_url: str) -> None:
    assert questions.ask_fate(INDEXED).answer() == FATES[INDEXED]
    end_all_connections(database_url)
    assert questions.ask_fate(REJECTED).answer() == FATES[REJECTED]
    asked = questions.ask_fate(INDEXED)
    end_all_connections(database_url)  # now it waits for its answer
    assert asked.answer() == FATES[INDEXED]


def test_no_database_is_told() -> None:
    gone = IndexQuestions(f"postgresql://nobody@127.0.0.1:{free_port()}/none")
    with pytest.raises(UpstreamError, match="does not answer"):
        gone.ask_fate(NEW)
    with pytest.raises(UpstreamError, match="does not answer"):
        gone.count()
