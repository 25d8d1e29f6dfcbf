"""What administrators cannot get round: withdrawals, loans that outlive a move, rows that change under them, names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from time import monotonic, sleep

import pytest
from sqlalchemy import Connection

from foramen.identity.database import transaction, utc_now
from foramen.identity.oauth.clients import PUBLIC, Client, save_client
from foramen.identity.people.accounts import Account, any_account, require_account
from foramen.identity.people.password_links import make_link
from foramen.identity.rights import administration
from foramen.identity.rights.account_administration import change_account, reset_factors, unlock
from foramen.identity.rights.administration import create_account, disable_account, enable_account
from foramen.identity.rights.delegations import delegate
from foramen.identity.rights.grant_administration import end_loan, revert_change, search_loans
from foramen.identity.rights.permissions import GRANT, WITHDRAW, change_permission, rights_of
from foramen.kernel.errors import ConflictError, ForbiddenError, InteropError, NotFoundError
from tests.contract.admin.conftest import Admin
from tests.contract.smart.people import PASSWORD

Act = Callable[[Connection, Account], object]
SECOND = "north-admin-2"


@pytest.fixture(autouse=True)
def fresh(admin: Admin) -> Iterator[None]:
    """Each test finds the accounts as they were made, and a second administrator of the same role."""
    with transaction(admin.database_url) as connection:
        if any_account(connection, SECOND) is None:
            boss = require_account(connection, "boss")
            wanted = Account(SECOND, "institution-administrator", institution="north")
            create_account(connection, boss, wanted, PASSWORD)
    yield
    admin.restore()


def decided(admin: Admin, name: str, permission: str, effect: str) -> None:
    with transaction(admin.database_url) as connection:
        account = require_account(connection, name)
        change_permission(connection, account, permission, effect, reason="SYNTHETIC", decided_by="boss")


def act(admin: Admin, by: str, work: Act) -> object:
    with transaction(admin.database_url) as connection:
        return work(connection, require_account(connection, by))


GIVING: dict[str, Act] = {
    "create": lambda c, by: create_account(
        c, by, Account("more", "institution-administrator", institution="north"), PASSWORD
    ),
    "raise": lambda c, by: change_account(
        c, by, Account("north-helper", "institution-administrator", institution="north")
    ),
    "change": lambda c, by: change_account(c, by, Account(SECOND, "assistant", institution="north")),
    "link": lambda c, by: make_link(c, by, SECOND),
    "reset": lambda c, by: reset_factors(c, by, SECOND, "SYNTHETIC"),
    "enable": lambda c, by: enable_account(c, by, SECOND),
    "revert": lambda c, by: revert_change(c, by, SECOND, "review-break-glass", "SYNTHETIC"),
    "grant": lambda c, by: administration.change(c, by, SECOND, "review-break-glass", GRANT, reason="SYNTHETIC"),
}


@pytest.mark.requirement("identity#roles")
@pytest.mark.parametrize("what", GIVING)
def test_a_withdrawal_is_not_undone_through_a_second_account(admin: Admin, what: str):
    if what == "revert":
        decided(admin, SECOND, "review-break-glass", WITHDRAW)
    decided(admin, "north-admin", "review-break-glass", WITHDRAW)
    with pytest.raises(ForbiddenError, match="rank"):
        act(admin, "north-admin", GIVING[what])
    act(admin, "north-admin", lambda c, by: unlock(c, by, "north-doctor"))  # who has less to say is still theirs


def test_administrators_with_the_same_to_say_act_on_each_other(admin: Admin):
    act(admin, "north-admin", lambda c, by: reset_factors(c, by, SECOND, "SYNTHETIC"))
    assert act(admin, "north-admin", lambda c, by: make_link(c, by, SECOND))


def lend(admin: Admin) -> None:
    with transaction(admin.database_url) as connection:
        lender, borrower = require_account(connection, "north-doctor"), require_account(connection, "north-helper")
        given = {"until": utc_now() + timedelta(days=1), "reason": "SYNTHETIC", "longest": timedelta(days=2)}
        delegate(connection, lender, borrower, "plan-care", **given)


def helps(admin: Admin) -> bool:
    with transaction(admin.database_url) as connection:
        return "plan-care" in rights_of(connection, require_account(connection, "north-helper")).permissions


@pytest.mark.requirement("identity#delegation")
@pytest.mark.parametrize("mover", ["north-doctor", "north-helper"])
def test_loans_end_when_either_of_the_two_goes_to_another_institution(admin: Admin, mover: str):
    lend(admin)
    assert helps(admin)
    with transaction(admin.database_url) as connection:
        moved = require_account(connection, mover)
        wanted = Account(mover, moved.role, moved.practitioner, institution="south")
        change_account(connection, require_account(connection, "boss"), wanted)
    assert not helps(admin)
    assert admin.execute("SELECT count(*) FROM identity.delegation WHERE ended_at IS NULL")[0][0] == 0
    said = admin.audited("delegation", "boss")[-1]
    assert (said["outcomeDesc"], said["entity"][-1]["name"]) == ("plan-care ended", "north-helper")
    admin.restore()
    assert not helps(admin)  # nor does it come back with them


@pytest.mark.requirement("identity#delegation")
@pytest.mark.parametrize("mover", ["north-doctor", "north-helper"])
def test_a_loan_that_is_left_counts_no_more_and_either_institution_ends_it(admin: Admin, mover: str):
    """The institution changes on another way: an identity provider says so."""
    lend(admin)
    admin.execute("UPDATE identity.account SET institution = 'south' WHERE name = :name", name=mover)
    assert not helps(admin)
    for by in ("south-admin", "north-admin"):
        with transaction(admin.database_url) as connection:
            found, total = search_loans(connection, require_account(connection, by), offset=0, limit=5)
            assert (total, found[0].borrower) == (1, "north-helper")
    by = "south-admin" if mover == "north-helper" else "north-admin"
    act(admin, by, lambda c, who: end_loan(c, who, search_loans(c, who, offset=0, limit=5)[0][0].id))
    assert admin.execute("SELECT count(*) FROM identity.delegation WHERE ended_at IS NULL")[0][0] == 0


CHANGES: dict[str, Act] = {
    "disable": lambda c, by: disable_account(c, by, "north-doctor"),
    "enable": lambda c, by: enable_account(c, by, "north-doctor"),
    "unlock": lambda c, by: unlock(c, by, "north-doctor"),
    "reset": lambda c, by: reset_factors(c, by, "north-doctor", "SYNTHETIC"),
    "change": lambda c, by: change_account(
        c, by, Account("north-doctor", "physician", "dr-north", institution="north", patient=None)
    ),
    "grant": lambda c, by: administration.change(c, by, "north-doctor", "annotate", GRANT, reason="SYNTHETIC"),
    "revert": lambda c, by: revert_change(c, by, "north-doctor", "annotate", "SYNTHETIC"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_an_account_is_judged_as_it_is_changed(admin: Admin, what: str):
    """It moves away while an administrator acts on it: what it was then does not count."""
    decided(admin, "north-doctor", "annotate", GRANT)
    with ThreadPoolExecutor(1) as pool:
        with transaction(admin.database_url) as connection:
            boss = require_account(connection, "boss")
            change_account(connection, boss, Account("north-doctor", "researcher", "dr-north", institution="south"))
            acting = pool.submit(act, admin, "north-admin", CHANGES[what])
            _waits(admin)
        with pytest.raises(NotFoundError):
            acting.result(timeout=10)


def _waits(admin: Admin) -> None:
    """Return when somebody waits for a row."""
    end = monotonic() + 10
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    while not admin.execute(waiting):
        assert monotonic() < end, "nobody waits"
        sleep(0.02)


def test_of_two_who_create_an_account_at_once_one_is_told(admin: Admin):
    def create(by: str, role: str) -> object:
        wanted = Account("twice", role, institution="north")
        return act(admin, by, lambda c, who: create_account(c, who, wanted, password_hash=f"hash of {by}"))

    with ThreadPoolExecutor(1) as pool:
        with transaction(admin.database_url) as connection:
            wanted = Account("twice", "researcher", institution="north")
            create_account(connection, require_account(connection, "boss"), wanted, password_hash="hash of boss")
            second = pool.submit(create, "north-admin", "assistant")
            _waits(admin)
        with pytest.raises(ConflictError, match="account of this name"):
            second.result(timeout=10)
    row = admin.execute("SELECT role, password_hash, created_by FROM identity.account WHERE name = 'twice'")[0]
    assert tuple(row) == ("researcher", "hash of boss", "boss")
    assert "twice" not in str(admin.audited("account", "north-admin"))


@pytest.mark.parametrize("name", ["foramen-worker", "foramen-cli", "foramen-anything"])
def test_an_account_has_no_name_of_a_client(admin: Admin, name: str):
    with pytest.raises(ConflictError, match="client of this name"):
        act(admin, "boss", lambda c, by: create_account(c, by, Account(name, "physician"), PASSWORD))


def test_nor_a_client_one_of_an_account(admin: Admin):
    wanted = Client("north-doctor", PUBLIC, "openid", ("https://app.example.org/",))
    with pytest.raises(ConflictError, match="account of this name"):
        act(admin, "boss", lambda c, _: save_client(c, wanted))
    act(admin, "boss", lambda c, _: save_client(c, Client("plain-app", PUBLIC, "openid", wanted.redirect_uris)))
    with pytest.raises(InteropError, match="client of this name"):
        act(admin, "boss", lambda c, by: create_account(c, by, Account("plain-app", "assistant"), PASSWORD))
