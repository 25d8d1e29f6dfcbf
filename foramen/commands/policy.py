"""`foramen policy test|explain`: run the tests of the access policy; say why an account may see something or not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foramen.kernel.settings import get_settings

app = typer.Typer(no_args_is_help=True)


@app.command("test")
def run_tests_of_policy(
    folder: Annotated[
        Path | None,
        typer.Argument(exists=True, file_okay=False, help="Folder of .rego files; without it, the ones in use."),
    ] = None,
) -> None:
    """Run the tests beside the policy files; exit code 1 when one fails or there is none."""
    from foramen.identity.policy import run_tests

    files = None
    if folder is not None:
        files = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.rego"))}
    outcomes = list(run_tests(files))
    width = max((len(one.name) for one in outcomes), default=0)
    for one in outcomes:
        typer.echo(f"{'passed' if one.passed else 'FAILED'}  {one.name:<{width}}  {one.file}")
        if one.fault:
            typer.echo(f"        {one.fault}", err=True)
    failed = sum(not one.passed for one in outcomes)
    typer.echo(f"{len(outcomes)} tests, {failed} failed")
    raise typer.Exit(1 if failed or not outcomes else 0)


@app.command("explain")
def explain(
    user: Annotated[str, typer.Option(help="Account name.")],
    resource_type: Annotated[str, typer.Option("--type", help="FHIR resource type.")],
    action: Annotated[str, typer.Option(help="One of c r u d s (SMART version 2).")] = "r",
    patient: Annotated[str | None, typer.Option(help="Patient whose record is asked about (id).")] = None,
    scopes: Annotated[
        str | None, typer.Option(help="Scopes of a token; without them, all the account can get.")
    ] = None,
    managed_by: Annotated[
        str | None, typer.Option(help="Organization (id) that manages the patient, where institutions are separate.")
    ] = None,
    app_patient: Annotated[str | None, typer.Option(help="Patient the app was opened for (id).")] = None,
) -> None:
    """Say why an account may, or may not, do this: each rule with its result. Exit code 0: allowed, 1: refused."""
    from foramen.identity.database import transaction
    from foramen.identity.people.accounts import require_account
    from foramen.identity.rights.explanation import explain as explained
    from foramen.kernel.database_url import database_url

    with transaction(database_url(get_settings())) as connection:
        account = require_account(connection, user)
        answer = explained(
            connection,
            account,
            resource_type,
            action,
            patient=patient,
            scopes=scopes,
            app_patient=app_patient,
            managed_by=managed_by,
        )
    for line in answer.lines:
        typer.echo(f"{line.result:<10} {line.rule:<12} {line.reason()}")
    typer.echo("allowed" if answer.allowed else "refused")
    raise typer.Exit(0 if answer.allowed else 1)
