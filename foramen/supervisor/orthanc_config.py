"""Write the private configuration of Orthanc: the template in orthanc/ plus folders, ports and the password.

https://orthanc.uclouvain.be/book/users/configuration.html
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

from foramen.kernel.errors import InteropError
from foramen.kernel.secret_files import read_or_create_secret
from foramen.kernel.settings import Settings

TEMPLATE_FOLDER = Path(__file__).parents[2] / "orthanc"
PLUGIN_FOLDERS = (
    Path("/usr/share/orthanc/plugins"),
    Path("/usr/lib/orthanc/plugins"),
    Path("/usr/local/share/orthanc/plugins"),
)
PLUGINS = ("libOrthancDicomWeb.so", "libOrthancPython.so")


class OrthancPluginMissingError(InteropError):
    """A plug-in of Orthanc that the system needs is not installed."""

    status = 503
    issue_code = "not-supported"


def write_orthanc_config(settings: Settings, folder: Path) -> Path:
    """Write Orthanc's configuration into `folder` and return its path; files and folders are the owner's alone.

    Parameters
    ----------
    settings : ports, AE title, stable-study wait, home (for the password)
    folder : where Orthanc keeps everything: configuration, storage/ and index/

    Raises
    ------
    OrthancPluginMissingError
        The DICOMweb or the Python plug-in is not installed; says which package has it.
    """
    folder = folder.resolve()
    for part in (folder, folder / "storage", folder / "index", folder / "outbox"):
        part.mkdir(mode=0o700, parents=True, exist_ok=True)
    template: dict[str, Any] = json.loads((TEMPLATE_FOLDER / "orthanc.json").read_text(encoding="utf-8"))
    path = folder / "orthanc.json"
    _write_private(path, json.dumps(template | _private_part(settings, folder), indent=2))
    return path


def orthanc_environment(settings: Settings, folder: Path) -> dict[str, str]:
    """Return the variables the notify plug-in reads; makes the shared secret on first use."""
    read_or_create_secret(settings.home, "notify")
    return {
        "FORAMEN_NOTIFY_URL": f"{settings.internal_origin}/dicom-web/-/study-arrived",
        "FORAMEN_NOTIFY_SECRET_FILE": str((settings.home / "secrets" / "notify").resolve()),
        "FORAMEN_OUTBOX_DIR": str((folder / "outbox").resolve()),
        # Longer than a study takes to count as stable, or a crash in between would lose its notification.
        "FORAMEN_SETTLE_S": str(max(30, 3 * settings.stable_study_s)),
        # DCMTK, by which Orthanc speaks DIMSE: with Nagle's algorithm each instance waits 40 ms for an acknowledgement.
        "TCP_NODELAY": "1",
    }


def _private_part(settings: Settings, folder: Path) -> dict[str, Any]:
    return {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "TemporaryDirectory": str(folder),
        "HttpPort": settings.orthanc_http_port,
        "DicomPort": settings.dicom_port,
        "DicomAet": settings.dicom_aet,
        "StableAge": settings.stable_study_s,
        "RegisteredUsers": {settings.orthanc_username: read_or_create_secret(settings.home, "orthanc")},
        "Plugins": [str(_plugin(name)) for name in PLUGINS],
        "PythonScript": str(TEMPLATE_FOLDER / "plugins" / "foramen.py"),
    }


def _plugin(name: str) -> Path:
    for folder in PLUGIN_FOLDERS:
        if (folder / name).exists():
            return folder / name
    raise OrthancPluginMissingError(f"{name} is missing; install the packages orthanc-dicomweb and orthanc-python")


def _write_private(path: Path, content: str) -> None:
    staged = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)
