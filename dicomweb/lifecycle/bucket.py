"""Objects of an S3-compatible bucket, one a file; whole or not at all, and read back before anything is given up.

https://docs.aws.amazon.com/AmazonS3/latest/API/Welcome.html (SigV4); obstore (Apache Arrow's object_store). ADR 0055
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import S3Store

from dicomweb.lifecycle.copies import PACKED, AbsentError
from foramen.kernel.errors import InvalidRequestError, UpstreamError
from foramen.kernel.settings import Settings

if TYPE_CHECKING:
    from obstore.store import ClientConfig

_CHUNK = 4 * 1024 * 1024
_PART = 16 * 1024 * 1024
_PARTS_AT_ONCE = 2
"""Larger files go up in parts of 16 MiB, two at a time: that much lies in memory."""
_CONNECT_S, _RETRY_S, _RETRIES = 5, 20, 2


class Bucket:
    """Where files lie whose folder is too dear. Blocking: ask it in a thread.

    Parameters
    ----------
    prefix : before the name of every object, such as ``foramen/``
    """

    def __init__(self, store: S3Store, prefix: str) -> None:
        self._store, self._prefix = store, prefix

    def key(self, name: str, *, packed: bool) -> str:
        """Name of the object of a file; names are Orthanc's (UUIDs), and say nothing of anybody."""
        return f"{self._prefix}{name[:2]}/{name[2:4]}/{name}{PACKED if packed else ''}"

    def put(self, key: str, path: Path) -> None:
        """Store a file.

        Raises
        ------
        UpstreamError
            The bucket does not take it now.
        OSError
            The file cannot be read.
        """
        with path.open("rb") as reading, _said():
            obstore.put(self._store, key, reading, chunk_size=_PART, max_concurrency=_PARTS_AT_ONCE)

    def digest(self, key: str) -> tuple[bytes, int]:
        """Read an object; return its SHA-256 and size.

        Raises
        ------
        AbsentError
            There is none.
        UpstreamError
            The bucket cannot be read now.
        """
        return _digested(self._chunks(key), None)

    def fetch(self, key: str, target: Path) -> tuple[bytes, int]:
        """Write an object into a new file that nobody else can read; return its SHA-256 and size.

        Raises
        ------
        AbsentError, UpstreamError
            As `digest`.
        OSError
            The file cannot be written.
        """
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        return _digested(self._chunks(key), descriptor)

    def remove(self, name: str) -> None:
        """Remove every form of a file.

        Raises
        ------
        UpstreamError
            The bucket cannot be asked now: something may still be there.
        """
        for packed in (False, True):
            self.remove_form(name, packed=packed)

    def remove_form(self, name: str, *, packed: bool) -> None:
        """Remove one form of a file; none there is no fault."""
        try:
            with _said():
                obstore.delete(self._store, self.key(name, packed=packed))
        except AbsentError:
            return

    def _chunks(self, key: str) -> Iterator[bytes]:
        with _said():
            for chunk in obstore.get(self._store, key).stream(min_chunk_size=_CHUNK):
                yield bytes(chunk)


def _digested(chunks: Iterator[bytes], descriptor: int | None) -> tuple[bytes, int]:
    reckoned, size = sha256(), 0
    try:
        for chunk in chunks:
            reckoned.update(chunk)
            size += len(chunk)
            if descriptor is not None:
                _write(descriptor, chunk)
        if descriptor is not None:
            os.fsync(descriptor)
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return reckoned.digest(), size


def _write(descriptor: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


@contextmanager
def _said() -> Iterator[None]:
    """Have faults of the library as ours; its messages name addresses and keys, and stay out of answers."""
    try:
        yield
    except (FileNotFoundError, NotFoundError) as exc:
        raise AbsentError from exc
    except BaseError as exc:
        raise UpstreamError("The bucket cannot be reached or refuses", headers={"Retry-After": "30"}) from exc


def bucket_of(settings: Settings) -> Bucket | None:
    """Return the bucket of an installation; None: there is none.

    Raises
    ------
    InvalidRequestError
        It is set up in part only, or by plain HTTP over a network.
    """
    if settings.nearline_s3_bucket is None:
        return None
    files = settings.nearline_s3_key_id_file, settings.nearline_s3_key_file
    endpoint = settings.nearline_s3_endpoint
    if endpoint is None or files[0] is None or files[1] is None or settings.nearline_folder is None:
        raise InvalidRequestError(
            "A bucket needs FORAMEN_NEARLINE_S3_ENDPOINT, …_KEY_ID_FILE, …_KEY_FILE and …_NEARLINE_FOLDER"
        )
    parts = urlsplit(endpoint)
    plain = parts.scheme == "http"
    if (plain and not _is_loopback(parts.hostname or "")) or parts.scheme not in ("http", "https"):
        raise InvalidRequestError("The bucket's address has to be https://… (http:// at a loopback address alone)")
    client: ClientConfig = {"allow_http": plain, "connect_timeout": timedelta(seconds=_CONNECT_S)}
    client["timeout"] = timedelta(seconds=settings.nearline_s3_timeout_s)
    try:
        access_key, secret_key = (file.read_text(encoding="utf-8").strip() for file in files if file is not None)
        if settings.nearline_s3_ca_file is not None:
            client["root_certificate"] = settings.nearline_s3_ca_file.read_bytes()
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidRequestError("A file of the bucket's keys or certificates cannot be read") from exc
    store = S3Store(
        settings.nearline_s3_bucket,
        endpoint=endpoint,
        region=settings.nearline_s3_region,
        access_key_id=access_key,
        secret_access_key=secret_key,
        virtual_hosted_style_request=False,
        disable_bulk_delete=True,  # Servers beside Amazon's have it seldom.
        client_options=client,
        retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_RETRY_S)},
    )
    return Bucket(store, settings.nearline_s3_prefix)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
