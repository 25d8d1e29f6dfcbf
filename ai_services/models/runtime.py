"""Opens released weights for ONNX Runtime after checking their SHA-256 (stage 4).

A file that is not the released one is refused: https://onnxruntime.ai/docs/api/python/api_summary.html.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnxruntime

THREADS = 2


class ModelIntegrityError(Exception):
    """The weights are missing or are not the released ones; nothing may be computed with them."""


def open_session(path: Path, sha256: str, *, threads: int = THREADS) -> onnxruntime.InferenceSession:
    """Check the file against its released hash, then load exactly the checked bytes.

    Parameters
    ----------
    path : ONNX file
    sha256 : released hash, hexadecimal
    threads : CPU threads of one session

    Raises
    ------
    ModelIntegrityError
        If the file is missing or differs from the release.
    """
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ModelIntegrityError(f"weights file {path.name} cannot be read") from exc
    found = hashlib.sha256(content).hexdigest()
    if found != sha256.lower():
        raise ModelIntegrityError(f"weights file {path.name} is not the released one: its SHA-256 is {found[:12]}…")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads would take the cores from the web process between two slices.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
