"""A small KMS as an external command: a mask and a code (SHAKE, HMAC) under a key in a file; SYNTHETIC.

Only the standard library, so that it starts at once. No scheme to be used anywhere else.

Calls are noted in `calls`, without what they were given. `mode` in a file makes it fail in one of several ways.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

_PROGRAM = """
import base64, hashlib, hmac, json, os, pathlib, sys, time
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
kek = (home / name).read_bytes()
context = given["context"].encode()


def stream(nonce, data):
    mask = hashlib.shake_256(kek + nonce + context).digest(len(data))
    return bytes(one ^ other for one, other in zip(data, mask))


def tag(nonce, body):
    return hmac.digest(kek, nonce + context + body, "sha256")


if action == "wrap":
    nonce = os.urandom(12)
    body = stream(nonce, base64.b64decode(given["key"]))
    wrapped = nonce + body + tag(nonce, body)
    print(json.dumps({"kek": name, "wrapped": base64.b64encode(wrapped).decode()}))
else:
    content = base64.b64decode(given["wrapped"])
    nonce, body, given_tag = content[:12], content[12:-32], content[-32:]
    if not hmac.compare_digest(given_tag, tag(nonce, body)):
        sys.exit(5)
    key = stream(nonce, body)
    print(json.dumps({"key": base64.b64encode(key).decode()}))
if mode == "fault":
    sys.exit(4)
"""


@dataclass(frozen=True)
class SyntheticKms:
    """The folder in which it lives."""

    folder: Path

    @property
    def command(self) -> str:
        """What FORAMEN_KMS_COMMAND is set to."""
        return shlex.join([sys.executable, "-I", "-S", str(self.folder / "kms.py"), str(self.folder)])

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
