"""The private Orthanc as a process: which program, which configuration, which environment."""

from __future__ import annotations

from pathlib import Path

from foramen.kernel.errors import UpstreamError
from foramen.kernel.settings import Settings
from foramen.supervisor.orthanc_config import orthanc_environment, write_orthanc_config

ORTHANC_PROGRAMS = ("/usr/sbin/Orthanc", "/usr/local/sbin/Orthanc", "/usr/bin/Orthanc")


def orthanc_process(settings: Settings) -> tuple[list[str], dict[str, str]]:
    """Write the configuration and return the command and the environment that start Orthanc.

    Raises
    ------
    UpstreamError
        Orthanc is not installed; says what to install.
    """
    program = next((path for path in ORTHANC_PROGRAMS if Path(path).exists()), None)
    if program is None:
        raise UpstreamError("Orthanc is not installed: apt install orthanc orthanc-dicomweb orthanc-python")
    folder = settings.home.resolve() / "orthanc"
    return [program, str(write_orthanc_config(settings, folder))], orthanc_environment(settings, folder)
