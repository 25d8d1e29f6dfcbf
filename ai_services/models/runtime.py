"""Opens released weights for ONNX Runtime after checking their SHA-256, on the device that this process is set to.

A file that is not the released one is refused: https://onnxruntime.ai/docs/api/python/api_summary.html. Stage 4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from foramen.kernel.log import get_log

if TYPE_CHECKING:  # 17 MB in memory: a process that only registers models does without.
    import onnxruntime

THREADS = 2
DEVICES = ("auto", "cpu", "cuda")
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class ModelIntegrityError(Exception):
    """The weights are missing or are not the released ones; nothing may be computed with them."""


class DeviceError(Exception):
    """The device that was asked for is not there; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Execution:
    """Where and how the sessions of this process run.

    Parameters
    ----------
    device : ``cpu``, ``cuda``, or ``auto``: CUDA where ONNX Runtime offers it, else the CPU
    threads : CPU threads of one session; a pipeline may give them to as many slices side by side instead
    """

    device: str = "auto"
    threads: int = THREADS


class _Holder:
    execution: Execution = Execution()


def configure(execution: Execution) -> str:
    """Set where sessions opened from now on run; returns the device chosen, ``cpu`` or ``cuda``.

    Raises
    ------
    DeviceError
        CUDA was asked for, and this ONNX Runtime does not offer it.
    """
    device = device_of(execution)
    _Holder.execution = execution
    return device


def current_execution() -> Execution:
    """What this process is set to."""
    return _Holder.execution


def device_of(execution: Execution) -> str:
    """Device that sessions get: a named one or nothing, never another in silence.

    Raises
    ------
    DeviceError
        As `configure`.
    """
    if execution.device not in DEVICES:
        raise DeviceError(f"the device is one of {', '.join(DEVICES)}")
    import onnxruntime

    offered = _CUDA in onnxruntime.get_available_providers()
    if execution.device == "cuda" and not offered:
        raise DeviceError("CUDA was asked for, and the installed ONNX Runtime does not offer it (onnxruntime-gpu does)")
    return "cuda" if offered and execution.device != "cpu" else "cpu"


def device_of_providers(providers: Iterable[str]) -> str:
    """Where models ran, by what their sessions got: ``cuda`` where any got it, else ``cpu``; ``none``: no session."""
    found = set(providers)
    return "cuda" if _CUDA in found else "cpu" if found else "none"


def open_session(path: Path, sha256: str, *, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Check the file against its released hash, then load exactly the checked bytes.

    Parameters
    ----------
    path : ONNX file
    sha256 : released hash, hexadecimal
    threads : CPU threads of the session; by default those this process is set to

    Raises
    ------
    ModelIntegrityError
        If the file is missing or differs from the release.
    DeviceError
        The device that was asked for cannot be used.
    """
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ModelIntegrityError(f"weights file {path.name} cannot be read") from exc
    found = hashlib.sha256(content).hexdigest()
    if found != sha256.lower():
        raise ModelIntegrityError(f"weights file {path.name} is not the released one: its SHA-256 is {found[:12]}…")
    return session_of(content, _Holder.execution, threads=threads)


def session_of(content: bytes, execution: Execution, *, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Open a session on bytes that were checked.

    ``auto`` falls back to the CPU where CUDA is offered and does not load, and says so in the log; which provider the
    session got is in its `get_providers`.

    Raises
    ------
    DeviceError
        CUDA was asked for by name and its libraries do not load: ONNX Runtime alone would go on with the CPU.
    """
    device = device_of(execution)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or execution.threads
    options.inter_op_num_threads = 1
    # Spinning threads would take the cores from the web process between two slices.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = [_CUDA, _CPU] if device == "cuda" else [_CPU]
    session = onnxruntime.InferenceSession(content, options, providers=providers)
    if device == "cuda" and _CUDA not in session.get_providers():
        if execution.device == "cuda":
            raise DeviceError("CUDA was asked for, and its libraries do not load here")
        get_log().warning("CUDA is offered but does not load: the model runs on the CPU")
    return session
