"""The command `foramen` (Typer). Each command is a file of `foramen/commands`; heavy imports happen inside them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from foramen import __version__
from foramen.commands import (
    application_entity,
    audit,
    bench,
    break_glass,
    client,
    dataset,
    deidentify,
    demo,
    doctor,
    export,
    identity_provider,
    import_,
    ingest,
    institution,
    keys,
    launch,
    lifecycle,
    load,
    model,
    package,
    permission,
    policy,
    project,
    quality,
    reconcile,
    register,
    subject,
    terminology,
    token,
    train,
    user,
)
from foramen.kernel.errors import InteropError
from foramen.kernel.settings import Settings, get_settings

app = typer.Typer(
    help="Foramen: imaging, records and AI for lumbar disc herniation surgery. Not a registered medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(application_entity.app, name="aet", help="AE accounts: who may call by DIMSE, and whom we call.")
app.add_typer(application_entity.forward, name="forward", help="Store and forward to other systems: rules, status.")
app.add_typer(application_entity.prefetch, name="prefetch", help="Priors from an outside PACS: rules, status.")
app.add_typer(audit.app, name="audit", help="Audit trail: verify, checkpoint, report.")
app.add_typer(break_glass.app, name="break-glass", help="Emergency access: list, review, end.")
app.add_typer(client.app, name="client", help="OAuth clients.")
app.add_typer(keys.app, name="keys", help="Keys that sign tokens, and those that seal stored secrets.")
app.add_typer(user.app, name="user", help="Accounts.")
app.add_typer(identity_provider.app, name="identity-provider", help="Outside providers that people sign in through.")
app.add_typer(institution.app, name="institution", help="Institutions that accounts belong to.")
app.add_typer(policy.app, name="policy", help="Access policy: test it, ask why.")
for name, command in permission.COMMANDS.items():
    user.app.command(name)(command)
app.add_typer(project.app, name="project", help="Projects that pseudonymised data is exported for.")
app.add_typer(subject.app, name="subject", help="Rights of a person: a copy of their data, erasure, legal holds.")
app.add_typer(terminology.app, name="terminology", help="Licensed code systems, from your own files.")
app.add_typer(bench.app, name="bench", help="Benchmarks: figures with ratios, history kept.")
app.add_typer(dataset.app, name="dataset", help="Versions of the data that models are trained on.")
app.add_typer(model.app, name="model", help="Models: measure, register, release, recall.")
app.add_typer(package.app, name="package", help="Implementation guides (FHIR packages).")
app.command("token")(token.token)
app.command("train")(train.train)
app.command("launch")(launch.launch)
app.command("ingest")(ingest.ingest)
app.command("quality")(quality.quality)
app.command("register")(register.register)
app.command("load")(load.load)
app.command("export")(export.export)
app.command("import")(import_.import_)
app.command("deidentify")(deidentify.deidentify)
app.command("reidentify")(deidentify.reidentify)
app.add_typer(lifecycle.app, name="lifecycle", help="Images: legal holds, retention, second folder.")
app.command("capacity")(lifecycle.capacity)
app.command("reconcile")(reconcile.reconcile)
app.command("doctor")(doctor.doctor)

Home = Annotated[Path | None, typer.Option(help="Folder that holds all state (FORAMEN_HOME).")]
Port = Annotated[int | None, typer.Option(help="Port of the web server (FORAMEN_PORT).")]
DicomPort = Annotated[int | None, typer.Option(help="DIMSE port (FORAMEN_DICOM_PORT).")]


def _settings(home: Path | None, port: int | None, dicom_port: int | None) -> Settings:
    """Settings with the options laid over the environment, so that child processes see the same."""
    for name, value in (("HOME", home), ("PORT", port), ("DICOM_PORT", dicom_port)):
        if value is not None:
            os.environ[f"FORAMEN_{name}"] = str(value)
    get_settings.cache_clear()
    return get_settings()


@app.command()
def up(home: Home = None, port: Port = None, dicom_port: DicomPort = None) -> None:
    """Start everything in the foreground; Ctrl-C or SIGTERM stops it cleanly."""
    from foramen.supervisor.supervisor import Supervisor

    Supervisor(_settings(home, port, dicom_port)).run()


@app.command("demo")
def demo_command(
    home: Home = None,
    port: Port = None,
    dicom_port: DicomPort = None,
    check: Annotated[bool, typer.Option(help="Do the whole main job without a person and exit 0 or 1.")] = False,
) -> None:
    """Start everything with demo data and send a lumbar MR study through it."""
    raise typer.Exit(demo.run(_settings(home, port, dicom_port), check=check))


@app.command()
def serve(
    only: Annotated[
        str | None, typer.Option(help="identity, fhir, dicomweb or apps, all without it; or dimse, never with them.")
    ] = None,
    migrate: Annotated[bool, typer.Option(help="Bring the database up to date first.")] = False,
) -> None:
    """Run the web process alone."""
    if only == "dimse":  # Of the web process it imports nothing.
        from dicomweb.dimse.process import serve as serve_dimse
        from foramen.kernel.database_url import database_url

        serve_dimse(get_settings(), database_url(get_settings()))
        return
    from foramen.app import SERVICES
    from foramen.web import serve as serve_web

    if only is not None and only not in SERVICES:
        raise typer.BadParameter(f"choose one of {', '.join(SERVICES)}", param_hint="--only")
    serve_web(get_settings(), only, migrate=migrate)


@app.command()
def worker() -> None:
    """Run the AI worker alone."""
    from ai_services.worker import run
    from foramen.kernel.database_url import database_url

    settings = get_settings()
    run(settings, database_url(settings))


@app.command()
def archive() -> None:
    """Run the private Orthanc alone, in this process's place (containers)."""
    from foramen.supervisor.orthanc_process import orthanc_process

    command, environment = orthanc_process(get_settings())
    os.execve(command[0], command, {**os.environ, **environment})  # noqa: S606  Orthanc itself, no shell


@app.command()
def migrate() -> None:
    """Bring the database up to date and register our own clients."""
    from foramen.app import migrate as migrate_all

    migrate_all(get_settings())


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """Run the command; faults with a name are said in one line."""
    try:
        app()
    except InteropError as error:
        typer.echo(f"foramen: {error.message}", err=True)
        sys.exit(1)
