"""Files of a release, in a folder or a zip archive, read as text without unpacking."""

from __future__ import annotations

import codecs
import csv
import io
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from terminology.importers.release import BadReleaseError, Problems

_CHUNK = 1 << 20
_SNIFF = 64 * 1024
_MAX_FIELD = 1 << 20


class Files:
    """The files below a folder, in a zip archive, or one single file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archive: zipfile.ZipFile | None = None
        if path.is_dir():
            self.names = sorted(str(item.relative_to(path)) for item in path.rglob("*") if item.is_file())
        elif path.suffix.lower() == ".zip":
            try:
                self._archive = zipfile.ZipFile(path)
            except zipfile.BadZipFile as exc:
                raise BadReleaseError("The zip archive cannot be read") from exc
            self.names = sorted(info.filename for info in self._archive.infolist() if not info.is_dir())
        elif path.is_file():
            self.names = [path.name]
        else:
            raise BadReleaseError("There is no such file or folder")

    def matching(self, pattern: str) -> list[str]:
        """Names whose last part matches a regular expression, apart from case; resource forks are left out."""
        compiled = re.compile(pattern, re.IGNORECASE)
        return [
            name
            for name in self.names
            if compiled.fullmatch(name.replace("\\", "/").rpartition("/")[2]) and "__MACOSX" not in name
        ]

    @contextmanager
    def binary(self, name: str) -> Iterator[BinaryIO]:
        """Open a file as bytes."""
        if self._archive is not None:
            with self._archive.open(name) as member:
                yield member  # type: ignore[misc]
        else:
            with (self.path / name if self.path.is_dir() else self.path).open("rb") as file:
                yield file

    @contextmanager
    def text(self, name: str) -> Iterator[TextIO]:
        """Open a file as text: UTF-8, UTF-16 with its mark, else GB 18030 (which contains GBK and GB 2312)."""
        encoding = self._encoding(name)
        with self.binary(name) as binary:
            yield io.TextIOWrapper(binary, encoding=encoding, errors="replace", newline="")

    def _encoding(self, name: str) -> str:
        with self.binary(name) as binary:
            head = binary.read(4)
            if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                return "utf-16"
            decoder = codecs.getincrementaldecoder("utf-8")()
            try:
                decoder.decode(head)
                while chunk := binary.read(_CHUNK):
                    decoder.decode(chunk)
                decoder.decode(b"", final=True)
            except UnicodeDecodeError:
                return "gb18030"
        return "utf-8-sig"

    def lines(self, name: str, columns: int, problems: Problems) -> Iterator[tuple[int, list[str]]]:
        """Rows of a tab-separated file without quoting (RF2), header left out; lines count from 1."""
        with self.text(name) as file:
            for line, text in enumerate(file, start=1):
                row = text.rstrip("\r\n").split("\t")
                if line == 1 or row == [""]:
                    continue
                if len(row) < columns:
                    problems.add(name, line, f"{len(row)} columns instead of {columns}")
                    continue
                yield line, row

    def records(self, name: str, required: tuple[str, ...], problems: Problems) -> Iterator[tuple[int, dict[str, str]]]:
        """Rows of a CSV file by column name.

        Raises
        ------
        BadReleaseError
            A required column is missing.
        """
        csv.field_size_limit(_MAX_FIELD)
        with self.text(name) as file:
            reader = csv.reader(file)
            header = [item.strip() for item in next(reader, [])]
            missing = [item for item in required if item not in header]
            if missing:
                raise BadReleaseError(f"{name} lacks the column {missing[0]}")
            while True:
                try:
                    row = next(reader, None)
                except csv.Error:
                    problems.add(name, reader.line_num, "cannot be read as CSV")
                    continue
                if row is None:
                    return
                if not row:
                    continue
                if len(row) != len(header):
                    problems.add(name, reader.line_num, f"{len(row)} columns instead of {len(header)}")
                    continue
                yield reader.line_num, dict(zip(header, row, strict=True))

    def table(self, name: str) -> Iterator[tuple[int, list[str]]]:
        """Rows of a CSV, TSV or XLSX file as trimmed texts, all sheets after one another; lines count from 1."""
        suffix = Path(name).suffix.lower()
        if suffix == ".xls":
            raise BadReleaseError("This is an old Excel file: save it as XLSX or CSV first")
        if suffix in (".xlsx", ".xlsm"):
            yield from self._workbook(name)
            return
        csv.field_size_limit(_MAX_FIELD)
        with self.text(name) as file:
            head = file.read(_SNIFF)
        delimiter = max("\t;,", key=head.partition("\n")[0].count)
        if head.count(delimiter) == 0:
            delimiter = max("\t;,", key=head.count)
        with self.text(name) as file:
            reader = csv.reader(file, delimiter=delimiter)
            for row in reader:
                yield reader.line_num, [item.strip() for item in row]

    def _workbook(self, name: str) -> Iterator[tuple[int, list[str]]]:
        import openpyxl

        with self.binary(name) as binary:
            try:
                book = openpyxl.load_workbook(binary, read_only=True, data_only=True)
            except (zipfile.BadZipFile, KeyError, ValueError) as exc:
                raise BadReleaseError("The workbook cannot be read") from exc
            for sheet in book.worksheets:
                sheet.reset_dimensions()  # Some programs write a wrong size, and rows would be lost.
                for line, row in enumerate(sheet.iter_rows(values_only=True), start=1):
                    yield line, ["" if item is None else str(item).strip() for item in row]
            book.close()
