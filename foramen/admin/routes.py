"""Every page of the administration app, one line each: path, methods, permission asked for, place in the navigation.

The leak tests are made from this table: a page without a permission, or one that lets somebody else in, fails them.
"""

from __future__ import annotations

from foramen.admin.endpoints import (
    account_actions,
    accounts,
    audit,
    break_glass,
    clients,
    delegations,
    grants,
    health,
    institutions,
    model_watch,
    overview,
    policies,
    sessions,
)
from foramen.admin.page import (
    ADMINISTRATION,
    GRANT_PERMISSIONS,
    MAINTAIN_RECORD,
    MANAGE_ACCOUNTS,
    MANAGE_CLIENTS,
    MANAGE_INSTITUTIONS,
    OPERATE_DEVICES,
    READ_AUDIT,
    REVIEW_BREAK_GLASS,
    Handler,
    Page,
)

_ACCOUNTS, _GRANTS, _INSTITUTIONS = (MANAGE_ACCOUNTS,), (GRANT_PERMISSIONS,), (MANAGE_INSTITUTIONS,)
_WATCH = (OPERATE_DEVICES, MAINTAIN_RECORD)
"""Engineers, and system administrators: what they see is counted, and never about a person."""
_CLIENTS, _AUDIT, _REVIEW = (MANAGE_CLIENTS,), (READ_AUDIT,), (REVIEW_BREAK_GLASS,)
_ONE, _CLIENT, _CASE = "/accounts/{name}", "/clients/{client_id}", "/break-glass/{id}"
_DECIDED = f"{_ONE}/permissions/{{permission}}/revert"


def _both(get: Handler, post: Handler) -> dict[str, Handler]:
    return {"GET": get, "POST": post}


PAGES: tuple[Page, ...] = (
    Page("/", {"GET": overview.overview}, ADMINISTRATION, menu="overview"),
    Page("/accounts", {"GET": accounts.accounts_page}, _ACCOUNTS, menu="accounts"),
    Page("/accounts/new", _both(accounts.new_account_page, accounts.new_account), _ACCOUNTS, recent=True),
    Page(_ONE, {"GET": accounts.account_page}, _ACCOUNTS),
    Page(f"{_ONE}/edit", _both(accounts.edit_account_page, accounts.edit_account), _ACCOUNTS, recent=True),
    Page(f"{_ONE}/disable", _both(account_actions.ask_disable, account_actions.disable), _ACCOUNTS),
    Page(f"{_ONE}/enable", _both(account_actions.ask_enable, account_actions.enable), _ACCOUNTS, recent=True),
    Page(f"{_ONE}/unlock", {"POST": account_actions.unlock}, _ACCOUNTS),
    Page(
        f"{_ONE}/reset-second-factor", _both(account_actions.ask_reset, account_actions.reset), _ACCOUNTS, recent=True
    ),
    Page(f"{_ONE}/password-link", _both(account_actions.ask_link, account_actions.link), _ACCOUNTS, recent=True),
    Page(f"{_ONE}/end-sessions", _both(sessions.ask_end_all, sessions.end_all), _ACCOUNTS),
    Page(f"{_ONE}/history", {"GET": account_actions.history}, (READ_AUDIT,)),
    Page(f"{_ONE}/permissions", _both(grants.account_permissions, grants.change_permission), _GRANTS, recent=True),
    Page(_DECIDED, _both(grants.ask_revert, grants.revert), _GRANTS, recent=True),
    Page("/permissions", {"GET": grants.permissions_page}, _GRANTS, menu="permissions"),
    Page("/roles", {"GET": grants.matrix}, ADMINISTRATION, menu="matrix"),
    Page("/delegations", {"GET": delegations.delegations_page}, _GRANTS, menu="delegations"),
    Page("/delegations/{id}/end", _both(delegations.ask_end, delegations.end), _GRANTS),
    Page("/institutions", {"GET": institutions.institutions_page}, _ACCOUNTS, menu="institutions"),
    Page("/institutions/new", _both(institutions.new_institution_page, institutions.new_institution), _INSTITUTIONS),
    Page("/institutions/{id}", _both(institutions.rename_page, institutions.rename), _INSTITUTIONS),
    Page("/sessions", {"GET": sessions.sessions_page}, _ACCOUNTS, menu="sessions"),
    Page("/sessions/end", {"POST": sessions.end_session}, _ACCOUNTS),
    Page("/authorizations", {"GET": sessions.authorizations_page}, _ACCOUNTS, menu="authorizations"),
    Page("/authorizations/{id}/revoke", _both(sessions.ask_revoke, sessions.revoke), _ACCOUNTS),
    Page("/clients", {"GET": clients.clients_page}, _CLIENTS, menu="clients"),
    Page("/clients/new", _both(clients.new_client_page, clients.new_client), _CLIENTS, recent=True),
    Page(_CLIENT, {"GET": clients.client_page}, _CLIENTS),
    Page(f"{_CLIENT}/approve", {"POST": clients.approve}, _CLIENTS, recent=True),
    Page(f"{_CLIENT}/reject", _both(clients.ask_reject, clients.reject), _CLIENTS),
    Page(f"{_CLIENT}/disable", _both(clients.ask_disable, clients.disable), _CLIENTS),
    Page(f"{_CLIENT}/enable", {"POST": clients.enable}, _CLIENTS, recent=True),
    Page("/policies", {"GET": policies.policies_page}, _ACCOUNTS, menu="policies"),
    Page("/policies/tests", {"GET": policies.tests_page}, _ACCOUNTS),
    Page("/policies/files/{file}", {"GET": policies.policy_page}, _ACCOUNTS),
    Page("/audit", {"GET": audit.audit_page}, _AUDIT, menu="audit"),
    Page("/audit/export", {"GET": audit.export}, _AUDIT),
    Page("/break-glass", {"GET": break_glass.break_glass_page}, _REVIEW, menu="break_glass"),
    Page(_CASE, _both(break_glass.case_page, break_glass.judge), _REVIEW, recent=True),
    Page(f"{_CASE}/end", _both(break_glass.ask_end, break_glass.end), _REVIEW),
    Page("/model-watch", {"GET": model_watch.model_watches}, _WATCH, menu="model_watch"),
    Page("/model-watch/{id}", {"GET": model_watch.model_watch}, _WATCH),
    Page("/health", {"GET": health.health_page}, (MAINTAIN_RECORD,), menu="health"),
)
