"""Which worker runs what (pytest-xdist, `pytest -n auto`): whole files, and the longest first.

A file's tests share servers, and so do all files of some folders; each such group is one unit of work. While one test
waits for a process to start or for a time to pass, others compute, so there are more workers than processors.
https://pytest-xdist.readthedocs.io/en/stable/distribution.html
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

TOGETHER = (
    "tests/contract/launcher/",
    "tests/contract/fhir/clients/",
    "tests/contract/dicomweb/reconciliation/",
    "tests/e2e/worker_runs/",
)
"""Folders whose files share one server."""
_LONG = (
    # What takes half a minute or more comes first, so that nobody waits for it alone at the end.
    "tests/e2e/worker_runs/",
    "tests/e2e/",
    "tests/contract/launcher/",
    "tests/training/",
    "tests/contract/dimse/",
    "tests/unit/foramen/commands/test_bench_ai.py",
    "tests/unit/ai_services/registration/test_pair.py",
    "tests/contract/fhir/test_leaks.py",
    "tests/contract/dicomweb/reconciliation/",
    "tests/contract/fhir/clients/",
    "tests/contract/fhir/test_openapi.py",
    "tests/contract/fhir/test_official_examples.py",
    "tests/contract/fhir/test_crash.py",
    "tests/contract/dicomweb/test_bench_dicomweb.py",
    "tests/contract/fhir/test_xml.py",
    "tests/contract/smart/",
    "tests/contract/admin/",
    "tests/contract/ingest/",
    "tests/contract/",
    "tests/unit/ai_services/workflow/",
    "tests/unit/ai_services/evaluation/",
    "tests/unit/ai_services/",
)


def group_of(nodeid: str) -> str:
    """The unit of work that a test belongs to."""
    file = nodeid.partition("::")[0]
    return next((folder for folder in TOGETHER if file.startswith(folder)), file)


def rank(group: str) -> int:
    """Place of a group in the order of work; the least is first."""
    return next((place for place, start in enumerate(_LONG) if group.startswith(start)), len(_LONG))


class WholeGroups(LoadScopeScheduling):
    """Gives out whole groups, in the order in which their tests were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def workers() -> int:
    """What `-n auto` means: twice as many as processors, but no more than eight, as each has servers of its own."""
    return min(8, 2 * (os.cpu_count() or 1))


def order(items: list[pytest.Item]) -> None:
    """Put the tests of long groups first; must come out equal in every worker."""
    items.sort(key=lambda item: rank(group_of(item.nodeid)))


def make_scheduler(config: pytest.Config, log: Any) -> WholeGroups:
    """pytest-xdist's hook of the same meaning."""
    config.option.loadscopereorder = False
    return WholeGroups(config, log)
