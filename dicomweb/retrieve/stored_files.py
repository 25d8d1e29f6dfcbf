"""Which file of the archive holds an instance, and where its pixel data lies; own table, filled once an instance.

Orthanc's files are written once (`OverwriteInstances` off) and lie at `storage/ab/cd/<attachment>`; where its folder is
not within reach the file is fetched by HTTP. https://orthanc.uclouvain.be/book/faq/orthanc-storage.html
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dicomweb.archive import Archive
from dicomweb.database import Database
from dicomweb.lifecycle.unpacking import Unpacking
from dicomweb.retrieve.fetched_files import FetchedFiles
from dicomweb.retrieve.pixel_layout import PixelLayout, scan
from dicomweb.study_index import IndexedInstance
from foramen.kernel.errors import InteropError, NotFoundError

_ATTACHMENT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_REMEMBERED = 20_000
_SAVE = """INSERT INTO dicomweb.instance_file (orthanc_id, attachment, size)
           SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[]) ON CONFLICT (orthanc_id) DO UPDATE
           SET attachment = EXCLUDED.attachment, size = EXCLUDED.size, layout = NULL"""

_AT_ONCE = 64
_KEEP_LAYOUTS = """UPDATE dicomweb.instance_file f SET layout = v.layout
    FROM unnest($1::text[], $2::bytea[], $3::text[]) AS v(orthanc_id, layout, attachment)
    WHERE f.orthanc_id = v.orthanc_id AND f.attachment = v.attachment"""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One instance's file: `path` relative to the storage folder ("ab/cd/uuid"), `size` in bytes."""

    orthanc_id: str
    path: str
    size: int


class StoredFiles:
    """Finds files, and says where pixel data lies in them."""

    def __init__(self, database: Database, archive: Archive, storage: Path, fetched: FetchedFiles) -> None:
        self._database, self._archive, self._storage, self._fetched = database, archive, storage, fetched
        self._known: OrderedDict[str, tuple[StoredFile, PixelLayout | None]] = OrderedDict()

    @property
    def within_reach(self) -> bool:
        """Whether the archive's folder is here."""
        return self._storage.is_dir()

    def absolute(self, file: StoredFile) -> Path:
        """Path of a file in the archive's folder."""
        return self._storage / file.path

    def name(self, file: StoredFile) -> str:
        """The same as text: for a whole study, paths as objects cost more than all else before its first byte."""
        return f"{self._storage}/{file.path}"

    async def files(self, instances: Sequence[IndexedInstance]) -> list[StoredFile] | None:
        """Files of instances, in their order; None when the archive's folder is not within reach.

        Raises
        ------
        NotFoundError
            The archive has none of one of them any more.
        """
        if not self.within_reach:
            return None
        wanted = [item.orthanc_id for item in instances]
        if len(wanted) == 1 and wanted[0] in self._known:
            return [self._known[wanted[0]][0]]
        found = await self._load(wanted)
        missing = [item for item in instances if item.orthanc_id not in found]
        if missing:
            found |= await self._ask(missing)
        if any(identity not in found for identity in wanted):
            raise NotFoundError("Not in the image archive")
        return [found[identity] for identity in wanted]

    async def packed(self, files: Sequence[StoredFile]) -> Unpacking | None:
        """Return what makes files whole in turn, when one of these lies packed in the second folder; else None."""
        unpacking = self._archive.unpacking
        if unpacking is None or not await unpacking.lacks(list(map(self.absolute, files))):
            return None
        return unpacking

    async def _unpacked(self, *paths: Path) -> None:
        """Have files made whole that lie packed in the second folder (ADR 0039)."""
        if self._archive.unpacking is not None:
            await self._archive.unpacking.present(paths)

    async def path(self, instance: IndexedInstance) -> Path:
        """Path of an instance's file on this machine; fetched from the archive when its folder is not within reach."""
        files = await self.files([instance])
        if files is None:
            return await self._fetched.fetch(self._archive, instance.orthanc_id)
        path = self.absolute(files[0])
        await self._unpacked(path)
        if not path.is_file():  # Deleted and stored again meanwhile: under another name.
            await self.forget(instance.orthanc_id)
            again = await self.files([instance])
            path = self.absolute(again[0]) if again else path
            if not path.is_file():
                raise NotFoundError("Not in the image archive")
        return path

    async def layout(self, instance: IndexedInstance) -> tuple[Path, PixelLayout]:
        """File of an instance and where its pixel data lies."""
        known = self._known.get(instance.orthanc_id)
        if known is not None and known[1] is not None:
            self._known.move_to_end(instance.orthanc_id)
            await self._unpacked(self.absolute(known[0]))
            return self.absolute(known[0]), known[1]
        path = await self.path(instance)
        layout = await asyncio.to_thread(scan, path)
        known = self._known.get(instance.orthanc_id)
        if known is not None:
            self._remember(known[0], layout)
            async with self._database.connection() as connection:
                await connection.execute(
                    "UPDATE dicomweb.instance_file SET layout = $2 WHERE orthanc_id = $1 AND attachment = $3",
                    *(instance.orthanc_id, layout.dumps(), Path(known[0].path).name),
                )
        return path, layout

    def ready(self, orthanc_id: str) -> tuple[str, PixelLayout] | None:
        """Path and layout of a file about which both are known; whether it can be opened shows when it is."""
        known = self._known.get(orthanc_id)
        if known is None or known[1] is None:
            return None
        return f"{self._storage}/{known[0].path}", known[1]

    async def know(self, instances: Sequence[IndexedInstance]) -> None:
        """Read what was found of many instances at once, so that none of them is looked up by itself."""
        wanted = [item.orthanc_id for item in instances if item.orthanc_id not in self._known][:_REMEMBERED]
        if not wanted or not self.within_reach:
            return
        query = "SELECT orthanc_id, attachment, size, layout FROM dicomweb.instance_file WHERE orthanc_id = ANY($1)"
        async with self._database.connection() as connection:
            rows = await connection.fetch(query, wanted)
        for row in rows:
            self._remember(_file(*row[:3]), PixelLayout.loads(row[3]) if row[3] else None)

    async def forget(self, orthanc_id: str) -> None:
        """Forget a file that is not there any more."""
        self._known.pop(orthanc_id, None)
        async with self._database.connection() as connection:
            await connection.execute("DELETE FROM dicomweb.instance_file WHERE orthanc_id = $1", orthanc_id)

    async def fill(self, study_instance_uid: str) -> None:
        """Find the files of a study that are not known yet, and the pixel data in them; for after intake."""
        if not self.within_reach:
            return
        query = """SELECT i.study_instance_uid, i.series_instance_uid, i.sop_instance_uid, i.orthanc_id,
                          i.transfer_syntax_uid, i.frames
                   FROM dicomweb.instance i LEFT JOIN dicomweb.instance_file f USING (orthanc_id)
                   WHERE i.study_instance_uid = $1 AND f.layout IS NULL"""
        async with self._database.connection() as connection:
            rows = await connection.fetch(query, study_instance_uid)
        instances = [IndexedInstance(*row) for row in rows]
        if not instances:
            return
        files = await self.files(instances) or []
        imaged = [(file, one) for file, one in zip(files, instances, strict=False) if one.frames]
        for start in range(0, len(imaged), _AT_ONCE):
            some = imaged[start : start + _AT_ONCE]
            done = await self._scan([file for file, _ in some])
            for file, instance in some:
                if file.orthanc_id not in done:  # packed, gone or not readable
                    await self.layout(instance)

    async def _scan(self, files: Sequence[StoredFile]) -> set[str]:
        """Find the pixel data of files that can be opened as they are; returns whose were found, by Orthanc id."""
        layouts = await asyncio.to_thread(_layouts, [self.absolute(file) for file in files])
        found = [(file, layout) for file, layout in zip(files, layouts, strict=True) if layout is not None]
        for file, layout in found:
            self._remember(file, layout)
        rows = [(file.orthanc_id, layout.dumps(), Path(file.path).name) for file, layout in found]
        if rows:
            async with self._database.connection() as connection:
                await connection.execute(_KEEP_LAYOUTS, *(list(column) for column in zip(*rows, strict=True)))
        return {row[0] for row in rows}

    async def _load(self, wanted: list[str]) -> dict[str, StoredFile]:
        query = "SELECT orthanc_id, attachment, size, layout FROM dicomweb.instance_file WHERE orthanc_id = ANY($1)"
        if len(wanted) > 1:
            query = query.replace(", layout", ", NULL")
        async with self._database.connection() as connection:
            rows = await connection.fetch(query, wanted)
        found = {row[0]: _file(row[0], row[1], row[2]) for row in rows}
        if len(wanted) == 1 and rows:
            self._remember(found[wanted[0]], PixelLayout.loads(rows[0][3]) if rows[0][3] else None)
        return found

    async def _ask(self, missing: list[IndexedInstance]) -> dict[str, StoredFile]:
        if len(missing) == 1:
            rows = [await self._archive.instance_file(missing[0].orthanc_id)]
        else:
            studies = sorted({item.study_instance_uid for item in missing})
            rows = [row for study in studies for row in await self._archive.study_files(study)]
        wanted = {item.orthanc_id for item in missing}
        rows = [row for row in rows if row[0] in wanted and _ATTACHMENT.fullmatch(row[1])]
        async with self._database.connection() as connection:
            await connection.execute(
                _SAVE, *(list(column) for column in zip(*rows, strict=True)) if rows else ([],) * 3
            )
        found = {row[0]: _file(*row) for row in rows}
        for item in missing[:_REMEMBERED]:
            if item.orthanc_id in found:
                self._remember(found[item.orthanc_id], None)
        return found

    def _remember(self, file: StoredFile, layout: PixelLayout | None) -> None:
        self._known[file.orthanc_id] = (file, layout)
        self._known.move_to_end(file.orthanc_id)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)


def _file(orthanc_id: str, attachment: str, size: int) -> StoredFile:
    return StoredFile(orthanc_id, f"{attachment[:2]}/{attachment[2:4]}/{attachment}", size)


def _layouts(paths: Sequence[Path]) -> list[PixelLayout | None]:
    """Where the pixel data of each file lies; None: it cannot be told now."""
    found: list[PixelLayout | None] = []
    for path in paths:
        try:
            found.append(scan(path))
        except (OSError, InteropError):
            found.append(None)
    return found
