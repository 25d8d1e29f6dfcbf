"""Secrets as files under FORAMEN_HOME/secrets, readable by the owner alone; made on first use, never printed."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any, cast

from joserfc.jwk import ECKey


def _write_once(path: Path, content: str) -> str:
    """Write a file that must not exist; whoever loses the race reads the winner's."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(staged, path)
    except FileExistsError:
        pass
    finally:
        staged.unlink()
    return path.read_text(encoding="utf-8")


def read_or_create_secret(home: Path, name: str) -> str:
    """Return the random secret `name` (256 bits, URL-safe), making it on first use."""
    path = home / "secrets" / name
    if path.exists():
        return path.read_text(encoding="utf-8").strip()
    return _write_once(path, secrets.token_urlsafe(32)).strip()


def read_or_create_key(home: Path, name: str, curve: str = "P-256") -> ECKey:
    """Return the private EC key `name`, making it on first use. The key id is its RFC 7638 thumbprint."""
    path = home / "secrets" / f"{name}.jwk.json"
    if path.exists():
        text = path.read_text(encoding="utf-8")
    else:
        key = ECKey.generate_key(curve, private=True)
        text = _write_once(path, json.dumps({**key.as_dict(private=True), "kid": key.thumbprint()}))
    return ECKey.import_key(cast(Any, json.loads(text)))
