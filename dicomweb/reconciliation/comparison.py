"""What differs between the archive and the index for one study. Pure.

An instance is known by its SOP Instance UID; Orthanc's id says of which patient, study and series it is (a hash of the
four identifiers), its attachment says which file: the same id with another attachment is a header somebody changed.
https://orthanc.uclouvain.be/book/faq/orthanc-ids.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Archived:
    """An instance as the archive has it."""

    orthanc_id: str
    sop_instance_uid: str
    attachment: str


@dataclass(frozen=True, slots=True)
class Indexed:
    """An instance as the index has it; `attachment`: the file its row was made of, None: not noted yet."""

    orthanc_id: str
    sop_instance_uid: str
    attachment: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is to be done with a study's rows.

    Parameters
    ----------
    new : in the archive, without a row in this study
    rewritten : same id, another file
    renamed : same SOP Instance UID under another id: another patient or series
    unnoted : rows whose file is right and has to be noted
    missing : rows without a file, which nobody withdrew: SOP Instance UIDs
    withdrawn : rows of instances that were rejected or deleted through us: SOP Instance UIDs
    duplicates : SOP Instance UIDs that stand for several files of the archive
    """

    new: tuple[Archived, ...] = ()
    rewritten: tuple[Archived, ...] = ()
    renamed: tuple[Archived, ...] = ()
    unnoted: tuple[Archived, ...] = ()
    missing: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()

    @property
    def replaced(self) -> tuple[Archived, ...]:
        """Rows that have to be made anew."""
        return self.rewritten + self.renamed


def compare(archived: Iterable[Archived], indexed: Iterable[Indexed], withdrawn: Set[str]) -> Comparison:
    """Compare archive and index.

    Of several files under one SOP Instance UID the one that the index holds stays; where it holds none, the first by
    its id. Which is right a person has to say.
    """
    rows = {row.sop_instance_uid: row for row in indexed}
    files: dict[str, list[Archived]] = {}
    for item in archived:
        if item.sop_instance_uid not in withdrawn:
            files.setdefault(item.sop_instance_uid, []).append(item)
    chosen = {uid: _chosen(found, rows.get(uid)) for uid, found in files.items()}
    pairs = [(item, rows[uid]) for uid, item in chosen.items() if uid in rows]
    same = [(item, row) for item, row in pairs if item.orthanc_id == row.orthanc_id]
    return Comparison(
        new=tuple(item for uid, item in chosen.items() if uid not in rows),
        rewritten=tuple(item for item, row in same if row.attachment not in (None, item.attachment)),
        renamed=tuple(item for item, row in pairs if item.orthanc_id != row.orthanc_id),
        unnoted=tuple(item for item, row in same if row.attachment is None),
        missing=tuple(sorted(uid for uid in rows if uid not in chosen and uid not in withdrawn)),
        withdrawn=tuple(sorted(uid for uid in rows if uid in withdrawn)),
        duplicates=tuple(sorted(uid for uid, found in files.items() if len(found) > 1)),
    )


def _chosen(found: list[Archived], row: Indexed | None) -> Archived:
    if row is not None:
        for item in found:
            if item.orthanc_id == row.orthanc_id:
                return item
    return min(found, key=lambda item: item.orthanc_id)


def by_uid(items: Iterable[Archived]) -> Mapping[str, Archived]:
    """Return instances by their SOP Instance UID."""
    return {item.sop_instance_uid: item for item in items}
