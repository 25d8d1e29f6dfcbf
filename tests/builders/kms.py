"""A small KMS as an external command: AES-GCM under a key in a file; SYNTHETIC, for tests.

Calls are noted in `calls`, without what they were given. `mode` in a file makes it fail in one of several ways.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

_PROGRAM = """
import base64, json, os, pathlib, sys, time
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
home, action = pathlib.Path(sys.argv[1]), sys.argv[2]
with (home / "calls").open("a") as calls:
    calls.write(action + "\\n")
mode = (home / "mode").read_text()
given = json.load(sys.stdin)
if mode == "hang":
    time.sleep(60)
if mode == "fail":
    print(json.dumps(given), file=sys.stderr)
    print(json.dumps(given))
    sys.exit(3)
if mode == "nonsense":
    print("no json", json.dumps(given))
    sys.exit(0)
if mode == "echo":
    print(json.dumps({"kek": "k", "wrapped": given.get("key", ""), "key": given.get("wrapped", "")}))
    sys.exit(0)
if mode == "other":
    print(json.dumps({"key": base64.b64encode(b"o" * 32).decode()}))
    sys.exit(0)
current = (home / "current").read_text()
name = given.get("kek", current)
kek = AESGCM((home / name).read_bytes())
context = given["context"].encode()
if action == "wrap":
    nonce = os.urandom(12)
    wrapped = nonce + kek.encrypt(nonce, base64.b64decode(given["key"]), context)
    print(json.dumps({"kek": name, "wrapped": base64.b64encode(wrapped).decode()}))
else:
    content = base64.b64decode(given["wrapped"])
    key = kek.decrypt(content[:12], content[12:], context)
    print(json.dumps({"key": base64.b64encode(key).decode()}))
"""


@dataclass(frozen=True)
class SyntheticKms:
    """The folder in which it lives."""

    folder: Path

    @property
    def command(self) -> str:
        """What FORAMEN_KMS_COMMAND is set to."""
        return shlex.join([sys.executable, str(self.folder / "kms.py"), str(self.folder)])

    @property
    def calls(self) -> list[str]:
        """What it was asked so far."""
        file = self.folder / "calls"
        return file.read_text(encoding="utf-8").split() if file.exists() else []

    def mode(self, mode: str) -> None:
        """Work ("work"), or fail in a way."""
        (self.folder / "mode").write_text(mode, encoding="utf-8")

    def use(self, name: str, key: bytes) -> None:
        """Make or exchange a key-encryption key, which wraps from now on."""
        (self.folder / name).write_bytes(key)
        (self.folder / "current").write_text(name, encoding="utf-8")


def synthetic_kms(folder: Path) -> SyntheticKms:
    """Set one up in a new folder."""
    folder.mkdir()
    (folder / "kms.py").write_text(_PROGRAM, encoding="utf-8")
    kms = SyntheticKms(folder)
    kms.mode("work")
    kms.use("kek-1", b"k" * 32)
    return kms
