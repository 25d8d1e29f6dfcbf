"""Proof that a package is the one that was registered: a signed statement over its files (stage 11).

JWS, RFC 7515, by the installation's own key (FORAMEN_HOME/secrets). Checked before any weights are opened: weights
exchanged on disk, with or without their manifest, are refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ai_services.models.registry import Manifest, PackageError, read_package
from ai_services.models.runtime import ModelIntegrityError
from foramen.kernel.crypto import SignatureError, StatementSigner, verified_statement
from foramen.kernel.secret_files import read_or_create_key

KIND = "foramen-model+jws"
KEY_NAME = "model-release"
SIGNATURE_FILE = "signature.jws"
"""In a package that was signed where it was made; one that is put together by hand has none."""


def signer(home: Path) -> StatementSigner:
    """The key that signs packages, made on first use."""
    return StatementSigner(read_or_create_key(home, KEY_NAME, "P-256"), KIND)


def sign_package(folder: Path, key: StatementSigner) -> tuple[Manifest, str]:
    """Read a package, check that its weights are what its manifest says, and sign it.

    Raises
    ------
    PackageError
        Not a package, no model card, or weights that are not those of the manifest.
    """
    manifest = read_package(folder)
    if not (folder / "MODEL_CARD.md").is_file():
        raise PackageError("the package has no MODEL_CARD.md")
    for role, file in manifest.models.items():
        try:
            found = hashlib.sha256(file.path.read_bytes()).hexdigest()
        except OSError as exc:
            raise PackageError(f"models.{role}.file cannot be read") from exc
        if found != file.identity.sha256:
            raise PackageError(f"models.{role}: the file is not the one that the manifest names by its SHA-256")
    return manifest, key.sign(_statement(manifest))


def check_signature(folder: Path, keys: Sequence[dict[str, Any]]) -> None:
    """Refuse a package that was signed where it was made, and is not what was signed there.

    Parameters
    ----------
    folder : the package
    keys : public keys (JWK) of those whose packages are taken: this installation, and whom the operator names

    Raises
    ------
    PackageError
        It has a signature that none of the keys made, or manifest or weights were changed since.
    """
    path = folder / SIGNATURE_FILE
    if not path.exists():
        return
    manifest = read_package(folder)
    for key in keys:
        try:
            said = verified_statement(path.read_text(encoding="ascii"), key, KIND)
        except (SignatureError, UnicodeDecodeError):
            continue
        if said != _statement(manifest):
            raise PackageError("the package is not the one that was signed where it was made")
        return
    raise PackageError("the package was signed by another installation; name its public key to take it in")


def open_package(folder: Path, statement: str, key: StatementSigner) -> Manifest:
    """Read a registered package after checking its signed statement.

    Raises
    ------
    ModelIntegrityError
        The statement is not ours, or the package is not the one it was made for. Weights are checked when opened.
    """
    try:
        said: dict[str, Any] = json.loads(verified_statement(statement, key.public(), KIND))
        manifest = read_package(folder)
    except SignatureError as exc:
        raise ModelIntegrityError("the package's signature is not this installation's") from exc
    except PackageError as exc:
        raise ModelIntegrityError(str(exc)) from exc
    if said != json.loads(_statement(manifest)):
        raise ModelIntegrityError(f"package {manifest.name} {manifest.version} is not the one that was signed")
    return manifest


def _statement(manifest: Manifest) -> bytes:
    files = {role: file.identity.sha256 for role, file in sorted(manifest.models.items())}
    said = {"name": manifest.name, "version": manifest.version, "manifest": manifest.digest, "files": files}
    return json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
