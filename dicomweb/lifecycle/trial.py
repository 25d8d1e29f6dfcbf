"""What packing would save of a folder of DICOM files: each is packed, unpacked and compared; nothing of it is changed.

Kinds are transfer syntaxes: what is compressed already stays as it is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom.filereader import read_file_meta_info
from pydicom.misc import is_dicom

from dicomweb.lifecycle.codec import Codec
from dicomweb.lifecycle.copies import digest


@dataclass(frozen=True, slots=True)
class Trial:
    """One file: bytes before and after; `codec` empty when it stays as it is, with its bytes after as before."""

    series: str
    codec: str
    before: int
    after: int
    exact: bool = True


def tried(folder: Path, codec: Codec) -> Iterator[Trial]:
    """Pack every DICOM file below a folder into a folder of ours, and compare what comes back."""
    with tempfile.TemporaryDirectory(prefix="foramen-compression-") as work:
        packed, again = Path(work) / "packed", Path(work) / "again"
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            if not is_dicom(path):
                continue
            size, name = path.stat().st_size, f"{path.parent.relative_to(folder)} {_syntax(path)}"
            used = codec("pack", path, packed)
            if not used:
                yield Trial(name, "", size, size)
                continue
            exact = bool(codec("unpack", packed, again)) and digest(again) == digest(path)
            yield Trial(name, used if exact else "", size, packed.stat().st_size if exact else size, exact)


def _syntax(path: Path) -> str:
    return str(read_file_meta_info(path).get("TransferSyntaxUID", "none"))


def lines(trials: Iterable[Trial]) -> list[str]:
    """Return a line for each folder and transfer syntax, and the sum. Pure."""
    groups: dict[str, list[Trial]] = {}
    everything: list[Trial] = []
    for trial in trials:
        groups.setdefault(trial.series, []).append(trial)
        everything.append(trial)
    return [_line(name, found) for name, found in sorted(groups.items())] + [_line("all", everything)]


def _line(name: str, found: list[Trial]) -> str:
    before, after = sum(one.before for one in found), sum(one.after for one in found)
    packed = [one for one in found if one.codec]
    ratio = sum(one.before for one in packed) / sum(one.after for one in packed) if packed else 1.0
    wrong = sum(not one.exact for one in found)
    return (
        f"{name}: {len(found)} files, {len(packed)} compressed ({ratio:.2f} : 1), {len(found) - len(packed)} kept as is"
        f"; {before / 1e6:,.2f} → {after / 1e6:,.2f} MB" + (f"; {wrong} NOT EXACT, kept" if wrong else "")
    )
