"""The access policy: its own tests pass and can fail, it agrees with an independent reading, and the page shows it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foramen.identity import policy
from foramen.identity.policy import PolicyError, evaluate, run_tests, sources, table
from foramen.identity.rights.roles import ROLES, role_scopes
from scripts.write_roles_page import PAGE, page

IDENTIFIED = {name for name, one in table("permissions").items() if one["identified"]}
names = st.sampled_from(sorted(table("permissions")))
some = st.lists(names, max_size=4)
scope = st.sampled_from(
    ["user/*.rs", "user/*.cruds", "user/Task.cru", "patient/*.rs", "patient/Observation.rs", "user/Device.r", "openid"]
)


def test_the_policys_own_tests_pass():
    outcomes = list(run_tests())
    assert len(outcomes) >= 40
    assert [one for one in outcomes if not one.passed] == []
    tested = {one.file.removesuffix("_test.rego") for one in outcomes}
    assert tested == {name.removesuffix(".rego") for name in sources() if not name.endswith("_test.rego")}


@pytest.mark.parametrize(
    ("file", "rule", "without"),
    [
        ("permissions.rego", "not name in input.withdrawn", "true"),
        ("permissions.rego", "name in reachable", "true"),
        ("permissions.rego", "is_array(input.withdrawn)", "true"),
        ("permissions.rego", '"researcher": {"train"', '"researcher": {"read-identified", "train"'),
        ("decision.rego", "within(scope, allowed)\n}", "true\n}"),
        ("decision.rego", "input.subject == input.patient", "true"),
        ("decision.rego", "released := false if", "released := true if"),
        ("decision.rego", "consented := false if", "consented := true if"),
        ("decision.rego", "default institution := false", "default institution := true"),
        ("decision.rego", "input.institution != null\n", "true\n"),
        ("decision.rego", "input.subject == input.break_glass", "true"),
        ("decision.rego", "input.managed_by == input.institution", "true"),
        ("administration.rego", "input.target.institution == input.institution", "true"),
        ("administration.rego", "default another := false", "default another := true"),
        ("administration.rego", "input.institution != null", "true"),
        ("delegation.rego", "default own := false", "default own := true"),
        ("delegation.rego", "default lendable := false", "default lendable := true"),
        ("delegation.rego", "default same_institution := false", "default same_institution := true"),
    ],
)
def test_a_weakened_policy_fails_them(file: str, rule: str, without: str):
    assert rule in sources()[file]
    changed = {**sources(), file: sources()[file].replace(rule, without)}
    assert any(not one.passed for one in run_tests(changed))


def test_a_file_that_is_no_rego_is_refused_and_named():
    with pytest.raises(PolicyError, match=r"broken\.rego"):
        list(run_tests({"broken.rego": "package x\nallow if {"}))


def test_a_rule_that_is_not_there_allows_nothing():
    with pytest.raises(PolicyError):
        evaluate("permissions.no_such_rule", {})


def test_the_command_says_what_failed(tmp_path: Path):
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "foramen", "policy", "test", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    good = run()
    assert (good.returncode, ", 0 failed" in good.stdout) == (0, True)
    (tmp_path / "x_test.rego").write_text("package x_test\n\ntest_a if 1 == 2\n\ntest_b if 1 == 1\n")
    bad = run(str(tmp_path))
    assert bad.returncode == 1
    assert "FAILED  test_a" in bad.stdout
    assert "passed  test_b" in bad.stdout
    assert run(str(tmp_path / "..")).returncode == 1  # no tests are no success


def test_roles_of_code_and_policy_are_the_same():
    assert set(table("roles")) == set(ROLES)
    assert set(table("grantable")) == set(ROLES)


WRITES = "CarePlan.cu DiagnosticReport.u Observation.u Provenance.c QuestionnaireResponse.cru Task.cru"
DEFINITIONS = "CodeSystem.rs ConceptMap.rs Library.rs StructureDefinition.rs ValueSet.rs"
DIRECTORY = "Device.rs Endpoint.rs Organization.rs Practitioner.rs PractitionerRole.rs"


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        ("physician", f"*.rs {WRITES}"),
        ("researcher", ""),
        ("engineer", f"Device.rs Endpoint.rs {DEFINITIONS}"),
        ("system-administrator", f"AuditEvent.rs {DIRECTORY} {DEFINITIONS}"),
        ("institution-administrator", f"{DIRECTORY} {DEFINITIONS}"),
        ("assistant", ""),
        ("service", ""),
        ("no such role", ""),
    ],
)
def test_what_each_role_may_be_granted(role: str, expected: str):
    wanted = {f"{context}/{part}" for part in expected.split() for context in ("user", "patient")}
    assert {str(scope) for scope in role_scopes(role)} == wanted


def test_a_patient_may_be_granted_patient_scopes_only():
    assert [str(scope) for scope in role_scopes("patient")] == ["patient/*.rs", "patient/AuditEvent.rs"]


def expected_permissions(role: str, granted: list[str], lent: list[str], withdrawn: list[str]) -> set[str]:
    own = set(table("roles").get(role, ()))
    reachable = own | set(table("grantable").get(role, ()))
    return (own | ({*granted, *lent} & reachable)) - set(withdrawn)


@settings(max_examples=150, deadline=None)
@given(role=st.sampled_from([*ROLES, "boss"]), granted=some, lent=some, withdrawn=some)
def test_rights_agree_with_an_independent_reading(role, granted, lent, withdrawn):
    question = {"role": role, "granted": granted, "lent": lent, "withdrawn": withdrawn}
    answer = evaluate("permissions.rights", question)
    expected = expected_permissions(role, granted, lent, withdrawn)
    assert set(answer["permissions"]) == expected
    assert set(answer["scopes"]) == {s for name in expected for s in table("permissions")[name]["scopes"]}
    if role not in ("physician", "assistant", "patient"):
        assert not expected & IDENTIFIED


def expected_decision(question: dict) -> bool:
    kind, action = question["type"], question["action"]

    def parts(text: str) -> tuple[str, str, str]:
        context, _, rest = text.partition("/")
        return (context, *rest.partition(".")[::2])

    def covers(text: str) -> bool:
        _, found, actions = parts(text)
        return found in ("*", kind) and action in actions

    covering = [s for s in question["scopes"] if covers(s)]
    rights = expected_permissions(*(question[name] for name in ("role", "granted", "lent", "withdrawn")))
    allowed = [s for name in rights for s in table("permissions")[name]["scopes"] if covers(s)]
    permitted = any(
        parts(s)[0] == parts(a)[0] or (parts(s)[0], parts(a)[0]) == ("patient", "user")
        for s in covering
        for a in allowed
    )
    whole = any(not s.startswith("patient/") for s in covering)
    within = question["patient"] is not None and question["subject"] in (None, question["patient"])
    shown = question["role"] != "patient" or question["verified"]
    unbounded = question["institutions"] == "shared" or "manage-institutions" in rights
    managed = question["institution"] is not None and question["institution"] == question["managed_by"]
    own = question["role"] == "patient" and question["subject"] == question["patient"]
    opened = question["break_glass"] is not None and question["subject"] == question["break_glass"]
    inside = unbounded or question["role"] == "service" or question["subject"] is None or managed or own or opened
    return permitted and bool(covering) and (whole or within) and inside and shown and question["consent"] != "deny"


@settings(max_examples=200, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(ROLES),
            "granted": some,
            "lent": some,
            "withdrawn": some,
            "scopes": st.lists(scope, max_size=4),
            "patient": st.sampled_from([None, "p1"]),
            "subject": st.sampled_from([None, "p1", "p2"]),
            "type": st.sampled_from(["Patient", "Observation", "Task", "Device", "CarePlan"]),
            "action": st.sampled_from("cruds"),
            "verified": st.booleans(),
            "consent": st.sampled_from([None, "permit", "deny"]),
            "institutions": st.sampled_from(["shared", "separate"]),
            "institution": st.sampled_from([None, "a"]),
            "managed_by": st.sampled_from([None, "a", "b"]),
            "break_glass": st.sampled_from([None, "p1"]),
        }
    )
)
def test_decisions_agree_with_an_independent_reading(question):
    answer = evaluate("decision.answer", question)
    assert answer["allow"] is expected_decision(question)
    assert answer["allow"] is all(rule["holds"] for rule in answer["rules"])


def test_a_repeated_question_is_not_evaluated_again():
    question = {"role": "physician", "granted": [], "lent": [], "withdrawn": ["train"]}
    first = evaluate("permissions.rights", question)
    before = policy._evaluated.cache_info()
    first["permissions"].clear()  # whoever changes an answer changes nobody else's
    assert evaluate("permissions.rights", dict(reversed(question.items())))["permissions"]
    assert policy._evaluated.cache_info().misses == before.misses


def test_the_page_shows_the_policy():
    assert PAGE.read_text(encoding="utf-8") == page(), "run python scripts/write_roles_page.py"
