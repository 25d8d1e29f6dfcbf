"""All limits together: every clause holds everywhere, placeholders keep their numbers, a refusal is a refusal."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import pytest

from dicomweb.search.matching import counted
from dicomweb.visibility import Clause, TokenLimit, Visibility, Visible
from foramen.kernel.access_context import AccessContext, parse_scopes
from foramen.kernel.errors import ForbiddenError


class Consented:
    """A limit as a later part would bring it."""

    async def clauses(self, context: AccessContext, action: str | None) -> Sequence[Clause]:
        return (
            Clause("NOT (s.patient_ref = ANY({}::text[]))", (["Patient/closed"],)),
            Clause("(NOT e.own_output OR e.series_instance_uid = ANY({}::text[]))", (["1.2"],), of_series=True),
        )

    def as_of(self, context: AccessContext) -> float:
        return 4.0


def decide(visibility: Visibility, scope: str, action: str | None, start: int = 1) -> Visible:
    context = AccessContext("s", "c", parse_scopes(scope), patient="p", fhir_user="Practitioner/d")
    return asyncio.run(visibility.visible(context, action, start=start))


def test_no_limit_shows_everything_and_needs_no_value() -> None:
    found = decide(Visibility(TokenLimit()), "user/ImagingStudy.rs", "r")
    assert (found.sql, found.study_sql, found.values, found.all_series) == ("true", "true", [], True)


def test_every_clause_is_in_both_forms_with_the_same_placeholders() -> None:
    found = decide(Visibility(TokenLimit(), Consented()), "patient/ImagingStudy.rs", "s", start=4)
    assert found.values == ["Patient/p", ["Patient/closed"], ["1.2"]]
    for form in (found.sql, found.study_sql):
        assert all(place in form for place in ("$4::text", "$5::text[]", "$6::text[]"))
        assert "$7" not in form
        assert "$3" not in form
    assert "EXISTS" in found.study_sql
    assert not found.all_series


def test_a_decision_is_as_old_as_the_oldest_thing_it_stands_on() -> None:
    assert decide(Visibility(TokenLimit(), Consented()), "user/ImagingStudy.rs", "r").as_of == 4.0
    assert decide(Visibility(TokenLimit()), "user/ImagingStudy.rs", "r").as_of == math.inf


@pytest.mark.parametrize("tag", ["00080061", "00201206", "00201208", "00080062"])
def test_counts_are_of_the_visible_series_where_some_are_hidden(tag: str) -> None:
    hidden = decide(Visibility(Consented()), "user/ImagingStudy.rs", "s")
    assert hidden.series_sql in counted(tag, hidden)


def test_without_a_scope_nothing_is_decided() -> None:
    with pytest.raises(ForbiddenError):
        decide(Visibility(TokenLimit()), "patient/Patient.rs", "s")
    assert decide(Visibility(TokenLimit()), "user/Task.u", None).sql == "true"
