"""`foramen doctor`: what this machine has, what it lacks, and what to do about each."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import typer

from foramen.kernel.embedded_postgres import postgres_pid
from foramen.kernel.settings import Settings, get_settings
from foramen.supervisor.orthanc_process import ORTHANC_PROGRAMS
from foramen.supervisor.ports import holder, is_free

_PLUGINS = Path("/usr/share/orthanc/plugins")
_MINIMUM_FREE_BYTES = 2_000_000_000


@dataclass(frozen=True)
class Check:
    """One look: what was looked at, whether it is good, what was found or what to do."""

    name: str
    good: bool
    text: str
    required: bool = True


def doctor() -> None:
    """Check this machine and this installation; exit 1 when something required is missing."""
    from rich.console import Console
    from rich.table import Table

    checks = inspect(get_settings())
    table = Table("", "part", "finding", box=None, pad_edge=False)
    for check in checks:
        mark = "[green]ok[/]" if check.good else ("[red]missing[/]" if check.required else "[yellow]note[/]")
        table.add_row(mark, check.name, check.text)
    Console().print(table)
    raise typer.Exit(0 if all(check.good or not check.required for check in checks) else 1)


def inspect(settings: Settings) -> list[Check]:
    """Look at everything; reads only."""
    return [
        Check("Python", sys.version_info >= (3, 11), sys.version.split()[0]),
        _orthanc(settings),
        *(_plugin(name, package) for name, package in (("DicomWeb", "orthanc-dicomweb"), ("Python", "orthanc-python"))),
        _home(settings),
        _database(settings),
        *_ports(settings),
        _apps(),
        _browser(),
        _training(),
    ]


def _orthanc(settings: Settings) -> Check:
    if settings.orthanc_url is not None:
        return Check("Orthanc", True, "yours, FORAMEN_ORTHANC_URL")
    program = next((path for path in ORTHANC_PROGRAMS if Path(path).exists()), None)
    return Check("Orthanc", program is not None, program or "apt install orthanc")


def _plugin(name: str, package: str) -> Check:
    file = _PLUGINS / f"libOrthanc{name}.so"
    return Check(f"Orthanc {name} plug-in", file.exists(), str(file) if file.exists() else f"apt install {package}")


def _home(settings: Settings) -> Check:
    home = settings.home.resolve()
    anchor = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(anchor).free
    good = os.access(anchor, os.W_OK) and free > _MINIMUM_FREE_BYTES
    return Check("FORAMEN_HOME", good, f"{home} ({free / 1e9:.0f} GB free)")


def _database(settings: Settings) -> Check:
    if settings.database_url is not None:
        return Check("PostgreSQL", True, "yours, FORAMEN_DATABASE_URL")
    pid = postgres_pid(settings.home.resolve() / "postgres")
    return Check("PostgreSQL", True, f"embedded, running (pid {pid})" if pid else "embedded, not running")


def _ports(settings: Settings) -> list[Check]:
    wanted = [("web", settings.port), ("DICOM", settings.dicom_port), ("Orthanc HTTP", settings.orthanc_http_port)]
    return [
        Check(f"port {port} ({name})", is_free("127.0.0.1", port), "free", required=False)
        if is_free("127.0.0.1", port)
        else Check(f"port {port} ({name})", False, f"taken by {holder(port)}", required=False)
        for name, port in wanted
    ]


def _apps() -> Check:
    built = (Path(__file__).parents[2] / "smart_apps" / "dist").is_dir()
    return Check("SMART apps", built, "built" if built else "make setup")


def _browser() -> Check:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    return Check("Chromium (browser tests)", program is not None, program or "apt install chromium", required=False)


def _training() -> Check:
    good = importlib.util.find_spec("torch") is not None and importlib.util.find_spec("monai") is not None
    return Check("PyTorch, MONAI (training)", good, "installed" if good else "make setup-train", required=False)
