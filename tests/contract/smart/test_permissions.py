"""Single permissions, loans and administrators: what counts for the next token, what ends, what the audit says."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from joserfc import jwt
from typer.testing import CliRunner

from foramen.cli import app as cli
from foramen.identity.database import transaction, utc_now
from foramen.identity.oauth.clients import PUBLIC, Client, save_client
from foramen.identity.people.accounts import Account, any_account, disable_account, ensure_user, require_account
from foramen.identity.rights import administration
from foramen.identity.rights.delegations import delegate, end_delegation
from foramen.identity.rights.explanation import HOLDS, IN_QUERY, REFUSES, explain
from foramen.identity.rights.institutions import ensure_institution
from foramen.identity.rights.permissions import GRANT, WITHDRAW, change_permission, rights_of
from foramen.kernel.errors import ConflictError, ForbiddenError, InvalidRequestError, NotFoundError
from foramen.kernel.settings import get_settings
from tests.contract.smart.conftest import APP, PASSWORD, App, Smart, sign_in

WIDE = "user/*.cruds openid fhirUser offline_access"
pytestmark = pytest.mark.requirement("identity#single-permissions")


@pytest.fixture(scope="module", autouse=True)
def _people(smart: Smart) -> None:
    ensure_institution(smart.database_url, "north", "北院 SYNTHETIC", "North SYNTHETIC")
    ensure_institution(smart.database_url, "south", "南院 SYNTHETIC", "South SYNTHETIC")
    people = (
        *(("anna", "physician", "north"), ("bo", "physician", "south"), ("helper", "assistant", "north")),
        *(("head", "institution-administrator", "north"), ("root", "system-administrator", None)),
        ("tech", "engineer", "north"),
    )
    for name, role, institution in people:
        ensure_user(
            smart.database_url, name, PASSWORD, role, f"dr-{name}" if role == "physician" else None, institution
        )
    with transaction(smart.database_url) as connection:
        save_client(connection, Client("wide", PUBLIC, f"{WIDE} foramen/admin", (APP,), first_party=True))


async def tokens(smart: Smart, name: str, scope: str = WIDE) -> tuple[App, dict]:
    app = App(smart, "wide", APP, scope)
    browser = smart.browser()
    await sign_in(browser, app, name)
    answer = await app.exchange(browser.answer["code"])
    assert answer.status_code == 200, answer.text
    return app, answer.json()


def account(smart: Smart, name: str) -> Account:
    with transaction(smart.database_url) as connection:
        return require_account(connection, name)


def decide(smart: Smart, name: str, permission: str, effect: str, **more):
    with transaction(smart.database_url) as connection:
        found = require_account(connection, name)
        given = {"reason": "SYNTHETIC reason", "decided_by": "root", **more}
        return change_permission(connection, found, permission, effect, **given)


def revoked(smart: Smart, token: str) -> bool:
    claims = jwt.decode(token, smart.service.verifier()._keys, algorithms=["ES256"]).claims
    row = smart.execute("SELECT revoked_at FROM identity.access_token WHERE jti = :jti", jti=claims["jti"])
    return row[0][0] is not None


def last_event(smart: Smart, what: str) -> dict:
    rows = smart.execute("SELECT event FROM identity.audit_outbox ORDER BY id DESC")
    return next(row[0] for row in rows if row[0]["subtype"][0]["code"] == what)


@pytest.mark.parametrize("effect", [GRANT, WITHDRAW])
async def test_what_is_decided_counts_from_the_next_token_on(smart: Smart, effect: str):
    permission, scope = ("annotate", "user/Observation.cu") if effect == GRANT else ("plan-care", "user/CarePlan.cu")
    asked = f"user/Patient.rs {scope}"
    _, before = await tokens(smart, "anna", asked)
    assert (scope in before["scope"].split()) is (effect == WITHDRAW)
    decide(smart, "anna", permission, effect)
    _, after = await tokens(smart, "anna", asked)
    assert (scope in after["scope"].split()) is (effect == GRANT)
    assert revoked(smart, before["access_token"]) is (effect == WITHDRAW)
    event = last_event(smart, effect)
    assert event["agent"][0]["altId"] == "root"
    assert event["entity"][0]["name"] == "anna"
    assert permission in event["outcomeDesc"]
    assert "SYNTHETIC reason" in event["outcomeDesc"]
    decide(smart, "anna", permission, WITHDRAW if effect == GRANT else GRANT)


async def test_tokens_that_hold_less_live_on_and_refresh_narrows_nothing_else(smart: Smart):
    app, kept = await tokens(smart, "anna", "user/Patient.rs offline_access")
    app_wide, ended = await tokens(smart, "anna", "user/CarePlan.cu user/Patient.rs offline_access")
    decide(smart, "anna", "plan-care", WITHDRAW)
    assert not revoked(smart, kept["access_token"])
    assert (await app.refresh(kept["refresh_token"])).status_code == 200
    assert revoked(smart, ended["access_token"])
    refused = await app_wide.refresh(ended["refresh_token"])
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    decide(smart, "anna", "plan-care", GRANT)


async def test_a_code_given_before_a_withdrawal_gives_no_token_after_it(smart: Smart):
    app, browser = App(smart, "wide", APP, "user/CarePlan.cu"), smart.browser()
    await sign_in(browser, app, "anna")
    decide(smart, "anna", "plan-care", WITHDRAW)
    answer = await app.exchange(browser.answer["code"])
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    decide(smart, "anna", "plan-care", GRANT)


async def test_a_token_lives_no_longer_than_the_permission_in_it(smart: Smart):
    decide(smart, "anna", "annotate", GRANT, until=utc_now() + timedelta(seconds=30))
    app, given = await tokens(smart, "anna", "user/Observation.c offline_access")
    assert 0 < given["expires_in"] <= 30
    smart.execute("UPDATE identity.permission_change SET until = now() - interval '1 s' WHERE permission = 'annotate'")
    answer = (await app.refresh(given["refresh_token"])).json()
    assert "Observation.c" not in answer["scope"]
    decide(smart, "anna", "annotate", WITHDRAW)


@pytest.mark.parametrize("permission", ["read-identified", "maintain-record", "verify-ai", "annotate"])
def test_an_engineer_cannot_be_granted_what_shows_patients(smart: Smart, permission: str):
    with pytest.raises(InvalidRequestError):
        decide(smart, "tech", permission, GRANT)
    # Even a row that somebody wrote past the check gives nothing.
    smart.execute(
        "INSERT INTO identity.permission_change (id, account, permission, effect, reason, decided_by, created_at) "
        "VALUES (gen_random_uuid(), 'tech', :permission, 'grant', 'SYNTHETIC', 'x', now())",
        permission=permission,
    )
    with transaction(smart.database_url) as connection:
        assert permission not in rights_of(connection, account(smart, "tech")).permissions
    smart.execute("DELETE FROM identity.permission_change WHERE account = 'tech'")


@pytest.mark.parametrize(
    ("permission", "more"),
    [
        ("no-such-permission", {}),
        ("annotate", {"reason": "  "}),
        ("annotate", {"reason": "x" * 501}),
        ("annotate", {"until": utc_now() - timedelta(seconds=1)}),
    ],
)
def test_what_cannot_be_granted_leaves_no_trace(smart: Smart, permission: str, more: dict):
    count = "SELECT (SELECT count(*) FROM identity.permission_change), (SELECT count(*) FROM identity.audit_outbox)"
    before = smart.execute(count)
    with pytest.raises(InvalidRequestError):
        decide(smart, "anna", permission, GRANT, **more)
    assert smart.execute(count) == before


def lend(smart: Smart, permission: str, lender: str = "anna", borrower: str = "helper", days: float = 1):
    with transaction(smart.database_url) as connection:
        return delegate(
            connection,
            require_account(connection, lender),
            require_account(connection, borrower),
            permission,
            until=utc_now() + timedelta(days=days),
            reason="SYNTHETIC leave",
            longest=timedelta(days=30),
        )


async def test_a_loan_gives_its_permission_and_names_both(smart: Smart):
    lend(smart, "read-identified")
    made = lend(smart, "record-questionnaires")
    _, given = await tokens(smart, "helper")
    context = smart.service.verifier().verify(given["access_token"])
    assert (context.subject, context.lenders) == ("helper", ("anna",))
    assert "user/QuestionnaireResponse.cu" in given["scope"]
    assert "CarePlan.c" not in given["scope"]
    claims = jwt.decode(given["access_token"], smart.service.verifier()._keys, algorithms=["ES256"]).claims
    assert claims["delegated_by"] == [{"sub": "anna"}]
    issued = last_event(smart, "authorization_code")
    assert [agent["altId"] for agent in issued["agent"]] == ["helper", "anna"]
    assert [agent["requestor"] for agent in issued["agent"]] == [True, False]
    assert last_event(smart, "delegation")["entity"][0]["name"] == "helper"
    with transaction(smart.database_url) as connection:
        end_delegation(connection, made.id, "root")
    assert revoked(smart, given["access_token"])
    _, left = await tokens(smart, "helper")
    assert "QuestionnaireResponse.c" not in left["scope"]


async def test_a_loan_ends_with_the_lenders_own_right(smart: Smart):
    lend(smart, "plan-care")
    _, given = await tokens(smart, "helper", "user/CarePlan.cu")
    decide(smart, "anna", "plan-care", WITHDRAW)
    assert revoked(smart, given["access_token"])
    decide(smart, "anna", "plan-care", GRANT)
    _, again = await tokens(smart, "helper", "user/CarePlan.cu")
    with transaction(smart.database_url) as connection:
        disable_account(connection, "anna")
    assert revoked(smart, again["access_token"])
    smart.execute("UPDATE identity.account SET disabled = false WHERE name = 'anna'")


@pytest.mark.parametrize(
    ("permission", "lender", "borrower", "days", "error"),
    [
        ("verify-ai", "anna", "helper", 1, ForbiddenError),  # judgement is not lent
        ("annotate", "anna", "helper", 1, ForbiddenError),  # not the lender's own
        ("plan-care", "bo", "helper", 1, ForbiddenError),  # another institution
        ("plan-care", "anna", "tech", 1, ForbiddenError),  # engineers never see patients
        ("plan-care", "anna", "anna", 1, ForbiddenError),
        ("plan-care", "tech", "helper", 1, ForbiddenError),
        ("plan-care", "anna", "helper", 31, InvalidRequestError),
        ("plan-care", "anna", "helper", -1, InvalidRequestError),
    ],
)
def test_what_cannot_be_lent(smart: Smart, permission: str, lender: str, borrower: str, days: float, error: type):
    with pytest.raises(error):
        lend(smart, permission, lender, borrower, days)


def test_an_institution_administrator_acts_on_the_own_institution_only(smart: Smart):
    head, root = account(smart, "head"), account(smart, "root")
    with transaction(smart.database_url) as connection:
        names = {one.name for one in administration.list_accounts(connection, head)}
        assert {"anna", "helper", "tech"} <= names
        assert not {"bo", "root", "surgeon"} & names
        assert {"bo", "anna", "surgeon"} <= {one.name for one in administration.list_accounts(connection, root)}
    for name in ("bo", "surgeon", "no-such-account"):  # nobody is told which of them exist
        with transaction(smart.database_url) as connection, pytest.raises(NotFoundError) as refusal:
            administration.disable_account(connection, head, name)
        assert str(refusal.value) == "There is no such account"
        with transaction(smart.database_url) as connection, pytest.raises(NotFoundError):
            administration.change(connection, head, name, "annotate", GRANT, reason="SYNTHETIC")
    with transaction(smart.database_url) as connection:
        wanted, belongings = Account("cleo", "physician", "dr9", None, "north"), {"Practitioner/dr9": {"north"}}
        new = administration.create_account(connection, head, wanted, PASSWORD, belongings=belongings)
        assert new.institution == "north"
        rights = administration.change(connection, head, "cleo", "annotate", GRANT, reason="SYNTHETIC")
        assert "annotate" in rights.permissions
        administration.disable_account(connection, head, "cleo")
        assert any_account(connection, "cleo").disabled
        administration.enable_account(connection, head, "cleo")


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        (Account("n1", "physician", institution="south"), NotFoundError),
        (Account("n2", "physician"), NotFoundError),
        (Account("n3", "system-administrator", institution="north"), ForbiddenError),
        (Account("anna", "physician", institution="north"), ConflictError),
    ],
)
def test_accounts_an_institution_administrator_cannot_make(smart: Smart, wanted: Account, error: type):
    head = account(smart, "head")
    with transaction(smart.database_url) as connection, pytest.raises(error):
        administration.create_account(connection, head, wanted, PASSWORD)
    with transaction(smart.database_url) as connection:
        found = any_account(connection, wanted.name)
        assert found is None or found.practitioner == "dr-anna"


def test_nobody_administers_the_own_account_and_physicians_none(smart: Smart):
    with transaction(smart.database_url) as connection:
        for name, target in (("head", "head"), ("anna", "helper"), ("tech", "helper")):
            with pytest.raises(ForbiddenError):
                administration.disable_account(connection, require_account(connection, name), target)
        with pytest.raises(ForbiddenError):
            administration.list_accounts(connection, require_account(connection, "anna"))
        administration.record_refusal(
            connection, require_account(connection, "anna"), "manage-accounts", "secret typed"
        )
    assert "entity" not in last_event(smart, "account")
    decide(smart, "head", "manage-accounts", WITHDRAW)
    with transaction(smart.database_url) as connection, pytest.raises(ForbiddenError):
        administration.disable_account(connection, require_account(connection, "head"), "helper")
    decide(smart, "head", "manage-accounts", GRANT)


def test_an_account_belongs_to_an_institution_there_is(smart: Smart):
    with pytest.raises(InvalidRequestError):
        ensure_user(smart.database_url, "lost", PASSWORD, "physician", "dr8", "nowhere")
    ensure_user(smart.database_url, "found", PASSWORD, "physician", "dr8", "Organization/north")
    assert account(smart, "found").institution == "north"


def test_explain_names_the_rule_that_refuses(smart: Smart):
    def ask(name: str, kind: str, action: str = "r", **more):
        with transaction(smart.database_url) as connection:
            answer = explain(connection, require_account(connection, name), kind, action, **more)
        return answer.allowed, {line.rule: line.result for line in answer.lines}

    assert ask("anna", "Observation")[0]
    allowed, rules = ask("tech", "Observation", scopes="user/*.rs")
    assert (allowed, rules["scope"], rules["permission"]) == (False, HOLDS, REFUSES)
    assert ask("ill", "Observation", patient="p1")[0]
    allowed, rules = ask("ill", "Observation", patient="p2")
    assert (allowed, rules["compartment"]) == (False, REFUSES)
    divided = {"institutions": "separate", "patient": "p1"}
    assert ask("anna", "Observation", **divided, managed_by="elsewhere")[1]["institution"] == REFUSES
    home = account(smart, "anna").institution
    assert ask("anna", "Observation", **divided)[1]["institution"] == (IN_QUERY if home else REFUSES)
    assert ask("anna", "Observation", institutions="shared", patient="p1")[1]["institution"] == HOLDS
    decide(smart, "anna", "read-identified", WITHDRAW)
    allowed, rules = ask("anna", "Observation")
    assert (allowed, rules["withdrawn"]) == (False, REFUSES)
    decide(smart, "anna", "read-identified", GRANT)
    with pytest.raises(InvalidRequestError):
        ask("anna", "Observation", "read")


def test_the_commands(smart: Smart, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORAMEN_DATABASE_URL", smart.database_url)
    monkeypatch.setenv("FORAMEN_HOME", str(smart.settings.home))
    get_settings.cache_clear()

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli, list(arguments))
        return result.exit_code, result.output

    tomorrow = (utc_now() + timedelta(days=1)).strftime("%Y-%m-%d")
    code, output = run("user", "grant", "anna", "train", "--until", tomorrow, "--reason", "SYNTHETIC")
    assert (code, "train" in json.loads(output)["permissions"]) == (0, True)
    code, output = run("user", "permissions", "anna")
    assert json.loads(output)["changes"][0]["decided_by"] == "foramen-cli"
    code, output = run("user", "withdraw", "anna", "train", "--reason", "SYNTHETIC")
    assert "train" not in json.loads(output)["permissions"]
    code, output = run(
        *("user", "delegate", "anna", "helper", "--permission", "plan-care", "--until", tomorrow),
        *("--reason", "SYNTHETIC"),
    )
    assert code == 0, output
    assert run("user", "end-delegation", json.loads(output)["id"])[0] == 0
    assert run("policy", "explain", "--user", "anna", "--type", "Observation")[0] == 0
    code, output = run("policy", "explain", "--user", "tech", "--type", "Observation")
    assert (code, output.splitlines()[-1]) == (1, "refused")
    assert '"north"' in run("institution", "list")[1]
    get_settings.cache_clear()
