"""Single permissions and loans: grant, withdraw, end, undo; the matrix is the policy's; each within reach only."""

from __future__ import annotations

import html
import re
import uuid
from datetime import timedelta

import pytest

from foramen.admin.page import MOUNT
from foramen.identity.database import transaction, utc_now
from foramen.identity.people.accounts import require_account
from foramen.identity.policy import table
from foramen.identity.rights.delegations import delegate
from foramen.identity.rights.permissions import rights_of
from foramen.identity.rights.roles import ROLES
from tests.builders.browser import Browser
from tests.contract.admin.conftest import Admin

DOCTOR = "/accounts/north-doctor/permissions"
DECISION = {"permission": "annotate", "effect": "grant", "reason": "labels for study 7", "until": "2099-12-31"}


@pytest.fixture(autouse=True)
def fresh(admin: Admin):
    """Each test finds no decisions and no loans."""
    yield
    admin.restore()


def held(admin: Admin, name: str) -> frozenset[str]:
    with transaction(admin.database_url) as connection:
        return rights_of(connection, require_account(connection, name)).permissions


def lend(admin: Admin, lender: str, borrower: str) -> uuid.UUID:
    with transaction(admin.database_url) as connection:
        return delegate(
            connection,
            require_account(connection, lender),
            require_account(connection, borrower),
            "plan-care",
            until=utc_now() + timedelta(days=2),
            reason="leave",
            longest=timedelta(days=30),
        ).id


async def decide(admin: Admin, by: str, path: str = DOCTOR, *, browser: Browser | None = None, **values: str):
    browser = browser or await admin.signed_in(by)
    await browser.open(f"{MOUNT}{path}")
    forms = re.findall(r'<form method="post" action="([^"]+)"', browser.page.text)
    return await browser.submit(index=forms.index(f"{MOUNT}{path}"), **{**DECISION, **values})


async def test_a_grant_counts_until_its_last_day_is_over_and_can_be_undone(admin: Admin):
    boss = await admin.signed_in("boss")
    shown = await decide(admin, "boss", browser=boss)
    assert "The permission is granted." in shown.text
    assert "annotate" in held(admin, "north-doctor")
    until = admin.execute("SELECT until FROM identity.permission_change WHERE ended_at IS NULL")[0][0]
    assert until.isoformat() == "2100-01-01T00:00:00+00:00"
    assert "labels for study 7" in (await boss.http.get(f"{MOUNT}/permissions?permission=annotate")).text
    shown = await boss.submit(index=1)
    assert "The role alone counts again." in shown.text
    assert "annotate" not in held(admin, "north-doctor")
    assert admin.audited("grant", "boss")[-1]["entity"][0]["name"] == "north-doctor"
    assert "annotate as the role has it" in admin.audited("grant-ended", "boss")[-1]["outcomeDesc"]


async def test_a_link_from_elsewhere_shows_no_undo_of_what_was_not_decided(admin: Admin):
    boss = await admin.signed_in("boss")
    revert = 'action="/apps/admin/accounts/north-doctor/permissions/annotate/revert"'
    for word in ("permission_granted", "permission_withdrawn"):
        shown = await boss.open(f"{MOUNT}{DOCTOR}?done={word}&permission=annotate")
        assert revert not in shown.text, word
    assert revert in (await decide(admin, "boss")).text
    for word in ("permission_granted", "permission_withdrawn"):
        shown = await boss.open(f"{MOUNT}{DOCTOR}?done={word}&permission=annotate")
        assert revert not in shown.text, "it was said, and is not said again"
        assert "The permission is granted." not in shown.text


async def test_a_withdrawal_ends_tokens_that_hold_more(admin: Admin):
    family = uuid.uuid4()
    admin.execute(
        "INSERT INTO identity.token_family (family, client_id, account, scope, launch_context, expires_at) "
        "VALUES (:family, 'portal', 'north-doctor', 'user/Observation.u', '{}', now() + interval '1 hour')",
        family=family,
    )
    shown = await decide(admin, "boss", permission="verify-ai", effect="withdraw", until="")
    assert "The permission is withdrawn." in shown.text
    assert "verify-ai" not in held(admin, "north-doctor")
    revoked = admin.execute("SELECT revoked_at FROM identity.token_family WHERE family = :family", family=family)
    assert revoked[0][0] is not None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"reason": ""}, "A reason of at most 500"),
        ({"until": "2020-01-01"}, "lies in the past"),
        ({"until": "tomorrow"}, "The end is a day"),
        ({"until": "9999-12-31"}, "The end is a day"),
        ({"permission": "maintain-record"}, "The policy refuses"),
        ({"permission": "no-such"}, "The policy refuses"),
        ({"effect": "lend"}, "granted or withdrawn"),
    ],
)
async def test_what_is_no_decision_changes_nothing(admin: Admin, values: dict, said: str):
    shown = await decide(admin, "boss", **values)
    assert shown.status_code in (400, 403)
    assert said in html.unescape(shown.text)
    assert admin.execute("SELECT count(*) FROM identity.permission_change WHERE ended_at IS NULL")[0][0] == 0


async def test_identified_data_are_out_of_reach_of_an_engineer_whoever_grants(admin: Admin):
    shown = await decide(admin, "boss", path="/accounts/builder/permissions", permission="read-identified")
    assert shown.status_code == 403
    assert "read-identified" not in held(admin, "builder")
    page = await (await admin.signed_in("boss")).open(f"{MOUNT}/accounts/builder/permissions")
    assert 'value="read-identified"' not in page.text


async def test_nobody_decides_on_the_own_permissions_by_ending_a_decision(admin: Admin):
    """To end a withdrawal gives something back: for oneself it would be a grant."""
    boss, north = await admin.signed_in("deputy"), await admin.signed_in("north-admin")
    await boss.open(f"{MOUNT}/accounts/north-admin/permissions")
    shown = await boss.submit(index=1, permission="read-directory", effect="withdraw", reason="not needed", until="")
    assert "withdrawn" in shown.text
    token = re.search(r'name="csrf" value="(\w+)"', (await north.open(f"{MOUNT}/permissions")).text)[1]
    path = f"{MOUNT}/accounts/north-admin/permissions/read-directory/revert"
    response = await north.http.post(path, data={"csrf": token, "reason": "give it back"})
    assert response.status_code == 403
    assert "read-directory" not in held(admin, "north-admin")


async def test_ending_what_is_not_decided_says_so_and_needs_a_reason(admin: Admin):
    boss = await admin.signed_in("boss")
    await decide(admin, "boss")
    await boss.open(f"{MOUNT}{DOCTOR}/annotate/revert")
    assert (await boss.submit(index=1, reason="")).status_code == 400
    assert "annotate" in held(admin, "north-doctor")
    await boss.open(f"{MOUNT}{DOCTOR}/train/revert")
    assert (await boss.submit(index=1, reason="nothing there")).status_code == 404


async def test_the_list_of_decisions_is_bounded_and_filtered(admin: Admin):
    north, south = await admin.signed_in("north-admin"), await admin.signed_in("south-admin")
    soon = (utc_now() + timedelta(days=3)).date().isoformat()
    await decide(admin, "boss", until=soon)
    await decide(admin, "boss", permission="train", until="")
    assert "2 found" in (await north.open(f"{MOUNT}/permissions?account=north")).text
    assert "1 found" in (await north.open(f"{MOUNT}/permissions?ending=soon")).text
    assert "Nothing matches" in (await south.open(f"{MOUNT}/permissions")).text
    assert re.search(r"<b>1</b><a [^>]+>single permissions end", (await north.open(f"{MOUNT}/")).text)
    assert re.search(r"<b>0</b><a [^>]+>single permissions end", (await south.open(f"{MOUNT}/")).text)


async def test_the_matrix_says_what_the_policy_says(admin: Admin):
    page = (await (await admin.signed_in("boss")).open(f"{MOUNT}/roles")).text
    roles, grantable = table("roles"), table("grantable")
    for name in table("permissions"):
        row = re.search(rf"<code>{name}</code>.*?</th>(.*?)</tr>", page, re.DOTALL)[1]
        cells = re.findall(r"<td>(.*?)</td>", row, re.DOTALL)
        said = ["yes" if ">Yes<" in cell else "single" if ">Single<" in cell else "" for cell in cells]
        expected = ["yes" if name in roles[role] else "single" if name in grantable[role] else "" for role in ROLES]
        assert said == expected, name


async def test_loans_are_listed_and_ended_within_reach(admin: Admin):
    north, south = await admin.signed_in("north-admin"), await admin.signed_in("south-admin")
    loan, other = lend(admin, "north-doctor", "north-helper"), lend(admin, "south-doctor", "south-helper")
    page = (await north.open(f"{MOUNT}/delegations")).text
    assert str(loan) in page
    assert str(other) not in page
    token = re.search(r'name="csrf" value="(\w+)"', page)[1]
    answers = []
    for chosen in (other, uuid.uuid4()):
        response = await north.http.post(f"{MOUNT}/delegations/{chosen}/end", data={"csrf": token})
        answers.append((response.status_code, re.sub(r'nonce="[^"]+"', "", response.text.replace(str(chosen), ""))))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404
    assert "plan-care" in held(admin, "south-helper")
    await north.open(f"{MOUNT}/delegations/{loan}/end")
    shown = await north.submit(index=1)
    assert "The loan has ended." in shown.text
    assert "plan-care" not in held(admin, "north-helper")
    assert admin.audited("delegation", "north-admin")[-1]["outcomeDesc"] == "plan-care ended"
    assert "1 found" in (await north.open(f"{MOUNT}/delegations?ended=also&account=helper")).text
    assert (await south.open(f"{MOUNT}/delegations/not-an-id/end")).status_code == 404
