"""`foramen deidentify` and `foramen reidentify`: images under a project's pseudonyms, and the way back for who may.

DICOM PS3.15 Annex E; docs/how-to/deidentify.md, ADR 0038
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foramen.kernel.settings import Settings, get_settings

if TYPE_CHECKING:
    from dicomweb.deidentification.identity import Subject
    from dicomweb.deidentification.reidentification import ReidentificationTable
    from dicomweb.deidentification.run import Project, RunReport
    from dicomweb.deidentification.stored_studies import StoredStudies, StoredStudy
    from foramen.kernel.access_context import AccessContext

_SCOPES = "system/ImagingStudy.rs system/Group.r system/Patient.rs"
OPERATOR = "foramen-cli"


def deidentify(
    paths: Annotated[list[Path], typer.Argument(help="DICOM files and folders, then the folder for the results.")],
    project: Annotated[str, typer.Option(help="Project whose pseudonyms are used (foramen project add).")],
    study: Annotated[
        list[str] | None, typer.Option(help="Study Instance UID of a stored study; may be repeated.")
    ] = None,
    group: Annotated[str | None, typer.Option(help="Group (logical id): the stored studies of its patients.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="Option of the profile to switch on.")] = None,
    without: Annotated[list[str] | None, typer.Option(help="Option of the profile to switch off.")] = None,
    blacken: Annotated[bool, typer.Option("--blacken", help="Blacken suspected text in MR and CT as well.")] = False,
    irreversible: Annotated[
        bool, typer.Option("--irreversible", help="Keep no re-identification table, need no database.")
    ] = False,
) -> None:
    """De-identify DICOM files, stored studies, or a cohort's images; writes a verification report beside them."""
    from dicomweb.deidentification.report import report_content, write_report

    *sources, folder = paths
    if bool(sources) + bool(study) + bool(group) != 1:
        raise typer.BadParameter("name files, --study or --group, one of them, and the folder for the results")
    settings = get_settings()
    chosen = _project(settings, project, option or [], without or [], blacken=blacken)
    table = None if irreversible else _table(settings, project)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(folder.iterdir()):  # Perhaps of another project, whose pseudonyms would stand beside these.
        raise typer.BadParameter("the folder is not empty")
    before = os.umask(0o077)
    try:
        if sources:
            report = _files(sources, folder, chosen, table)
        else:
            report = _stored(settings, study or [], group, folder, chosen, table)
        write_report(folder, report_content(report, chosen, datetime.now(UTC)))
    finally:
        os.umask(before)
    if table is not None:
        table.record("deidentify", _operator())
    held = sum(report.held_back.values())
    typer.echo(f"{report.written} written, {held} held back, {report.no_dicom} not DICOM; open {folder}/report.html")
    raise typer.Exit(0 if report.written or not report.read else 1)


def reidentify(
    pseudonym: Annotated[str, typer.Argument(help="Patient ID or UID of a de-identified instance.")],
    project: Annotated[str, typer.Option(help="Project it is of.")],
    user: Annotated[str, typer.Option(help="Your account: it needs the permission reidentify.")],
) -> None:
    """Tell what stands behind a pseudonym; asking is audited, whether it is allowed or not."""
    from foramen.identity.database import transaction
    from foramen.identity.people.accounts import require_account
    from foramen.identity.rights.permissions import rights_of
    from foramen.kernel.access_context import AccessContext
    from foramen.kernel.database_url import database_url

    settings = get_settings()
    with transaction(database_url(settings)) as connection:
        account = require_account(connection, user)
        permissions = set(rights_of(connection, account).permissions)
    found = _table(settings, project).find(pseudonym, AccessContext(user, OPERATOR, ()), permissions)
    typer.echo(json.dumps({"kind": found.kind, **found.original}, ensure_ascii=False, indent=2))


def _project(settings: Settings, name: str, on: list[str], off: list[str], *, blacken: bool) -> Project:
    from dicomweb.deidentification.profile import Options, Profile
    from dicomweb.deidentification.run import Project
    from foramen.kernel.crypto.pseudonyms import ProjectPseudonyms
    from foramen.kernel.project_keys import read_project_key

    pseudonyms = ProjectPseudonyms(read_project_key(settings.home, name))
    return Project(name, Profile(Options.of(on, off)), pseudonyms, blacken)


def _table(settings: Settings, project: str) -> ReidentificationTable:
    from dicomweb.deidentification.reidentification import ReidentificationTable
    from foramen.kernel.database_url import database_url
    from foramen.kernel.project_keys import read_project_key

    key = read_project_key(settings.home, project)
    return ReidentificationTable(database_url(settings), project, key, settings.cipher)


def _operator() -> AccessContext:
    from foramen.kernel.access_context import AccessContext

    return AccessContext(OPERATOR, OPERATOR, ())


def _files(sources: list[Path], folder: Path, project: Project, table: ReidentificationTable | None) -> RunReport:
    from rich.console import Console
    from rich.progress import track

    from dicomweb.deidentification.identity import Subject
    from dicomweb.deidentification.run import deidentify_all, files_under

    files = list(files_under(sources))
    contents = (path.read_bytes() for path in track(files, "de-identify", console=Console(stderr=True)))
    return deidentify_all(contents, folder, project, Subject.of_file, table.add if table else _forget)


def _stored(
    settings: Settings,
    uids: list[str],
    group: str | None,
    folder: Path,
    project: Project,
    table: ReidentificationTable | None,
) -> RunReport:
    from rich.console import Console
    from rich.progress import track

    from dicomweb.deidentification.identity import Subject
    from dicomweb.deidentification.run import RunReport, deidentify_all

    source = _source(settings)
    studies: list[StoredStudy] = source.cohort(group) if group else [source.study(uid) for uid in uids]
    report = RunReport()
    for study in track(studies, "studies", console=Console(stderr=True)):
        subject = Subject.of_record(study.patient)
        contents: Iterator[bytes] = source.instances(study)
        keep = table.add if table else _forget
        deidentify_all(contents, folder, project, partial(_same, subject), keep, report)
    return report


def _same(subject: Subject, _: object) -> Subject:
    return subject


def _forget(_: object) -> None:
    """Keep no links."""


def _source(settings: Settings) -> StoredStudies:
    import httpx

    from dicomweb.deidentification.stored_studies import StoredStudies
    from foramen.identity.oauth.operator_token import operator_token
    from foramen.kernel.database_url import database_url

    token = operator_token(settings, database_url(settings), _SCOPES, expires_in_s=86_400)
    headers: dict[str, Any] = {"Authorization": f"Bearer {token}"}
    http = httpx.Client(headers=headers, timeout=300, trust_env=False)
    return StoredStudies(http, f"{settings.internal_origin}/fhir", f"{settings.internal_origin}/dicom-web")
