"""`foramen capacity` and `foramen lifecycle …`: room for images, legal holds, retention, the second folder.

docs/how-to/image_lifecycle.md, ADR 0039
"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foramen.kernel.settings import Settings, get_settings

if TYPE_CHECKING:
    import httpx
    import psycopg

    from dicomweb.lifecycle.codec import Codec
    from dicomweb.lifecycle.nearline import Nearline
    from foramen.kernel.access_context import AccessContext

app = typer.Typer(no_args_is_help=True)
OPERATOR = "foramen-cli"
Study = Annotated[str, typer.Argument(help="Study Instance UID.")]
User = Annotated[str, typer.Option(help="Who decides; it stands in the audit trail.")]


def capacity(
    per_day: Annotated[list[str], typer.Option(help="Planned studies a day, e.g. MR=40; may be repeated.")],
    folder: Annotated[Path, typer.Option(help="Where the page goes.")] = Path("capacity"),
    capacity_tb: Annotated[float, typer.Option(help="Room there is, in TB (10^12 bytes).")] = 128.0,
    growth: Annotated[float, typer.Option(help="Growth a year; 0.1 is a tenth more.")] = 0.0,
    copies: Annotated[int, typer.Option(min=1, help="How often each byte is stored.")] = 1,
    reserve: Annotated[float, typer.Option(min=0, max=0.9, help="Part that stays free.")] = 0.15,
    compression: Annotated[float, typer.Option(min=0.01, max=1.0, help="Bytes at rest by bytes received.")] = 1.0,
) -> None:
    """Measure the stored studies and forecast when the room is used up; a page with the arithmetic."""
    from dicomweb.deidentification.run import write_whole
    from dicomweb.lifecycle.archive_sizes import measure
    from dicomweb.lifecycle.at_rest import bytes_at_rest
    from dicomweb.lifecycle.capacity import Plan, by_modality, forecast
    from dicomweb.lifecycle.capacity_page import FILES, arithmetic, capacity_page

    settings = get_settings()
    with _archive(settings) as http, _database() as connection:
        found = measure(http)
        at_rest = bytes_at_rest(connection, settings.nearline_folder, found.disk_size)
    sizes = by_modality(found.studies)
    try:
        plan = Plan(capacity_tb, _planned(per_day), growth, copies, reserve, compression)
        ahead = forecast(at_rest.stored, sizes, plan)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--per-day") from error
    for line in arithmetic(at_rest, sizes, plan, ahead):
        typer.echo(line)
    for lang, name in FILES.items():
        page = capacity_page(lang, at_rest, sizes, plan, ahead, datetime.now(UTC))
        write_whole(folder / name, page.encode())
    typer.echo(f"open {folder}/{FILES['zh-CN']}")


def _planned(texts: list[str]) -> dict[str, float]:
    planned = {}
    for text in texts:
        modality, _, count = text.partition("=")
        planned[modality] = float(count)
    return planned


@app.command("hold")
def hold(study: Study, reason: Annotated[str, typer.Option(help="Why; name no patient.")], user: User) -> None:
    """Put a study under a legal hold: it cannot be removed."""
    from dicomweb.lifecycle.legal_holds import place

    with _database() as connection:
        place(connection, study, reason, person(user))
    typer.echo("held")


@app.command("release")
def release_(study: Study, user: User) -> None:
    """End a legal hold."""
    from dicomweb.lifecycle.legal_holds import release

    with _database() as connection:
        release(connection, study, person(user))
    typer.echo("released")


@app.command("holds")
def holds() -> None:
    """Print the legal holds in force as JSON."""
    from dicomweb.lifecycle.legal_holds import in_force

    with _database() as connection:
        found = in_force(connection)
    typer.echo(
        json.dumps(
            [
                {"study": one.study_instance_uid, "reason": one.reason, "placedBy": one.placed_by}
                | {"placedAt": one.placed_at.isoformat(timespec="seconds")}
                for one in found
            ],
            ensure_ascii=False,
            indent=2,
        )
    )


@app.command("move")
def move(
    most: Annotated[int, typer.Option(min=1, help="Studies at most in this run.")] = 1000,
    dry: Annotated[bool, typer.Option("--dry", help="Only say what is due.")] = False,
) -> None:
    """Move the images of studies that are due to the second folder (run it at night, from a timer)."""
    from dicomweb.lifecycle.rules import attachment, due, tier_rules

    settings = get_settings()
    moved = files = 0
    with _database() as connection, _archive(settings) as http:
        studies = due(connection, datetime.now(UTC).date(), tier_rules(settings), most)
        connection.commit()
        nearline = None if dry else _nearline(settings, connection)
        for study, instances in studies:
            for orthanc_id in instances if nearline is not None else ():
                found = attachment(http, study, orthanc_id)
                if found is not None and nearline is not None:
                    size = nearline.move(found)
                    moved, files = moved + size, files + (size > 0)
    typer.echo(f"{len(studies)} studies due; {files} files moved, {moved / 1e6:,.1f} MB")


@app.command("compress")
def compress(
    most: Annotated[int, typer.Option(min=1, help="Studies at most in this run.")] = 1000,
    dry: Annotated[bool, typer.Option("--dry", help="Only say what is due.")] = False,
) -> None:
    """Compress the pixel data of moved images without loss, by rule (run it after `move`)."""
    from dicomweb.lifecycle.codec import waiting_codec
    from dicomweb.lifecycle.packed_files import PackedFiles
    from dicomweb.lifecycle.rules import tier_rules, to_pack

    settings = get_settings()
    files = kept = freed = 0
    with _database() as connection, waiting_codec(settings) as codec:
        studies = to_pack(connection, datetime.now(UTC).date(), tier_rules(settings), most)
        connection.commit()
        packed = PackedFiles(connection, _nearline_folder(settings), codec)
        for name in (name for _, names in studies for name in names if not dry):
            done = packed.pack(name)
            files, kept, freed = files + (done.freed > 0), kept + done.kept, freed + done.freed
    typer.echo(f"{len(studies)} studies due; {files} files compressed, {kept} kept as is, {freed / 1e6:,.1f} MB freed")


@app.command("offload")
def offload(
    most: Annotated[int, typer.Option(min=1, help="Studies at most in this run.")] = 1000,
    dry: Annotated[bool, typer.Option("--dry", help="Only say what is due.")] = False,
) -> None:
    """Move files of the second folder to the bucket, by rule (run it after `move` and `compress`)."""
    from dicomweb.lifecycle.bucket import bucket_of
    from dicomweb.lifecycle.remote_files import RemoteFiles
    from dicomweb.lifecycle.rules import tier_rules, to_offload
    from foramen.kernel.errors import InvalidRequestError

    settings = get_settings()
    bucket = bucket_of(settings)
    if bucket is None:
        raise InvalidRequestError("Set FORAMEN_NEARLINE_S3_BUCKET")
    files = freed = 0
    with _database() as connection:
        studies = to_offload(connection, datetime.now(UTC).date(), tier_rules(settings), most)
        connection.commit()
        remote = RemoteFiles(connection, _nearline_folder(settings), bucket)
        for name in (name for _, names in studies for name in names if not dry):
            size = remote.offload(name)
            files, freed = files + (size > 0), freed + size
    typer.echo(f"{len(studies)} studies due; {files} files in the bucket now, {freed / 1e6:,.1f} MB freed")


@app.command("try-compression")
def try_compression(folder: Annotated[Path, typer.Argument(help="DICOM files; nothing is changed.")]) -> None:
    """Compress and restore every DICOM file of a folder, and print what it would save."""
    from dicomweb.lifecycle.codec import waiting_codec
    from dicomweb.lifecycle.trial import lines, tried

    if not folder.is_dir():
        raise typer.BadParameter("no such folder", param_hint="FOLDER")
    with waiting_codec(get_settings()) as codec:
        for line in lines(tried(folder, codec)):
            typer.echo(line)


@app.command("recall")
def recall(study: Study) -> None:
    """Bring a study's images back to the archive's own folder."""
    settings = get_settings()
    from dicomweb.lifecycle.codec import waiting_codec

    with _database() as connection, waiting_codec(settings) as codec:
        rows = connection.execute(
            "SELECT attachment FROM dicomweb.nearline_file WHERE study_instance_uid = %s", (study,)
        ).fetchall()
        nearline = _nearline(settings, connection, codec)
        size = sum(nearline.recall(str(row[0])) for row in rows)
    typer.echo(f"{len(rows)} files, {size / 1e6:,.1f} MB")


@app.command("verify")
def verify() -> None:
    """Read every file of the second folder and compare its checksum; exit 1 when one is missing or changed."""
    with _database() as connection:
        faults = list(_nearline(get_settings(), connection).verify())
    for name, fault in faults:
        typer.echo(f"{fault}: {name}", err=True)
    typer.echo("good" if not faults else f"{len(faults)} faults")
    raise typer.Exit(1 if faults else 0)


@app.command("sweep")
def sweep() -> None:
    """Remove copies of the second folder whose study the archive has deleted."""
    with _database() as connection:
        typer.echo(f"{_nearline(get_settings(), connection).sweep()} copies removed")


@app.command("retention")
def retention(
    day: Annotated[datetime, typer.Argument(formats=["%Y-%m-%d"], help="Date of the study or of the last visit.")],
    record_type: Annotated[str, typer.Option(help="inpatient, outpatient or own-output.")] = "inpatient",
) -> None:
    """Say until when a record of that day is kept. The years are settings, UNVERIFIED as law."""
    from dicomweb.lifecycle.retention import RetentionRules, keep_until

    if record_type not in ("inpatient", "outpatient", "own-output"):
        raise typer.BadParameter("choose inpatient, outpatient or own-output", param_hint="--record-type")
    settings = get_settings()
    rules = RetentionRules(
        settings.retention_inpatient_years, settings.retention_outpatient_years, settings.retention_own_output_years
    )
    until: date = keep_until(record_type, day.date(), rules)  # type: ignore[arg-type]
    typer.echo(f"{until.isoformat()} (UNVERIFIED)")


def person(name: str) -> AccessContext:
    """Return who decides: an account that there is."""
    from foramen.identity.database import transaction
    from foramen.identity.people.accounts import require_account
    from foramen.kernel.access_context import AccessContext
    from foramen.kernel.database_url import database_url

    with transaction(database_url(get_settings())) as connection:
        require_account(connection, name)
    return AccessContext(name, OPERATOR, ())


def _database() -> psycopg.Connection[Any]:
    import psycopg

    from foramen.kernel.database_url import database_url

    return psycopg.connect(database_url(get_settings()))


def _archive(settings: Settings) -> httpx.Client:
    import httpx

    from foramen.kernel.secret_files import read_or_create_secret

    auth = (settings.orthanc_username, read_or_create_secret(settings.home, "orthanc"))
    return httpx.Client(base_url=settings.archive_url, auth=auth, timeout=60, trust_env=False)


def _nearline(settings: Settings, connection: psycopg.Connection[Any], codec: Codec | None = None) -> Nearline:
    from dicomweb.lifecycle.nearline import Nearline
    from dicomweb.lifecycle.unpacking import bucket_if_set
    from foramen.kernel.errors import InvalidRequestError

    online, folder = settings.home / "orthanc" / "storage", _nearline_folder(settings)
    if not online.is_dir():
        raise InvalidRequestError("The archive's folder has to be on this machine")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Nearline(connection, online, folder, codec, bucket_if_set(settings))


def _nearline_folder(settings: Settings) -> Path:
    from foramen.kernel.errors import InvalidRequestError

    if settings.nearline_folder is None:
        raise InvalidRequestError("Set FORAMEN_NEARLINE_FOLDER")
    return settings.nearline_folder
