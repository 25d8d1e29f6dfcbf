"""Headers of archived instances, read from the archive's own files where their folder is within reach.

Only the beginning of a file is read: by HTTP the whole of it would come through two processes for a hundredth of it.
https://orthanc.uclouvain.be/book/faq/orthanc-storage.html
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from dicomweb.instance_header import InstanceHeader, MalformedInstanceError, read_header
from dicomweb.reconciliation.comparison import Archived
from dicomweb.store.beginning import read_beginning
from dicomweb.store.inspect import HEAD_BYTES

_ATTACHMENT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def headers_in(storage: Path, items: Iterable[Archived]) -> dict[str, InstanceHeader]:
    """Return by attachment the headers of those instances whose files can be read here; the others the archive has.

    Parameters
    ----------
    storage : the folder in which Orthanc keeps its files, as `ab/cd/<attachment>`
    """
    found: dict[str, InstanceHeader] = {}
    for name in (item.attachment for item in items):
        if _ATTACHMENT.fullmatch(name):
            try:
                found[name] = header_at(storage / name[:2] / name[2:4] / name)
            except (OSError, MalformedInstanceError):  # not here, packed, or not readable by itself
                continue
    return found


def header_at(path: Path) -> InstanceHeader:
    """Read the header of a file.

    Raises
    ------
    OSError
        It cannot be opened.
    MalformedInstanceError
        Not DICOM, or without the UIDs that name it.
    """
    with path.open("rb") as file:
        beginning = read_beginning(file.read(HEAD_BYTES), os.fstat(file.fileno()).st_size)
        if beginning is not None:
            return beginning.header(has_pixel_data="Rows" in beginning.dataset)
        file.seek(0)
        return read_header(file)
