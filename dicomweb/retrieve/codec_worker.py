"""The codec process: decodes, encodes and renders untrusted files, one request at a time, within limits.

Reads one JSON object a line from standard input; answers one JSON line, then the bytes it announces. It may crash or be
killed at any time: nothing but the request at hand is lost. Started by `codec_pool.py`; `python -m` runs it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import orjson

_PR_SET_PDEATHSIG = 1
_LARGE_BYTES = 4 * 1024 * 1024
Answer = tuple[dict[str, Any], list[bytes]]


def _frames(request: dict[str, Any]) -> Answer:
    from dicomweb.retrieve import decoding, encoding

    dataset = decoding.open_file(Path(request["path"]))
    kind, numbers = request["syntax"], request["numbers"]
    if kind == "native":
        found = [decoding.little_endian_frame(dataset, number) for number in numbers]
    elif kind == "stored":
        found = [decoding.stored_frame(dataset, number) for number in numbers]
    else:
        found = [encoding.encoded_frame(dataset, number, kind) for number in numbers]
    return {}, found


def _instance(request: dict[str, Any]) -> Answer:
    from dicomweb.retrieve import encoding

    encoding.transcode(Path(request["path"]), Path(request["target"]), request["syntax"])
    return {}, []


def _bulk(request: dict[str, Any]) -> Answer:
    from dicomweb.instance_header import bulk_value
    from dicomweb.retrieve import decoding

    value = bulk_value(decoding.open_file(Path(request["path"])), request["element"])
    if value is not None and len(value) > _LARGE_BYTES:
        Path(request["target"]).write_bytes(value)
        return {"found": True, "file": True}, []
    return {"found": value is not None}, [value or b""]


def _render(request: dict[str, Any]) -> Answer:
    from dicomweb.retrieve import decoding, picture
    from dicomweb.retrieve.rendering_parameters import Rendering

    dataset = decoding.open_file(Path(request["path"]))
    state = decoding.open_file(Path(request["state"])) if request.get("state") else None
    rendering = Rendering.of(request["rendering"])
    return {}, [picture.rendered(dataset, request["numbers"], rendering, state)]


def _animation(request: dict[str, Any]) -> Answer:
    from dicomweb.retrieve import decoding, picture
    from dicomweb.retrieve.rendering_parameters import Rendering

    sources = ((decoding.open_file(Path(item["path"])), item["numbers"]) for item in request["sources"])
    return {}, [picture.animated(sources, Rendering.of(request["rendering"]))]


def _document(request: dict[str, Any]) -> Answer:
    from dicomweb.retrieve import decoding, document
    from dicomweb.retrieve.presentation_state import images_of

    dataset = decoding.open_file(Path(request["path"]))
    shows = images_of(dataset)
    if shows:
        return {"shows": shows}, []
    media_type, content = document.rendered(dataset)
    return {"mediaType": media_type}, [content]


def _pack(request: dict[str, Any]) -> Answer:
    from dicomweb.lifecycle import packing

    return {"codec": packing.pack(Path(request["path"]), Path(request["target"]))}, []


def _unpack(request: dict[str, Any]) -> Answer:
    from dicomweb.lifecycle import packing

    return {"codec": packing.restore(Path(request["path"]), Path(request["target"]))}, []


OPERATIONS: dict[str, Callable[[dict[str, Any]], Answer]] = {
    "frames": _frames,
    "instance": _instance,
    "bulk": _bulk,
    "render": _render,
    "animation": _animation,
    "document": _document,
    "pack": _pack,
    "unpack": _unpack,
}


def answer(request: dict[str, Any]) -> Answer:
    """Do one request; what goes wrong is a word, never a text of the file."""
    try:
        return OPERATIONS[request["operation"]](request)
    except MemoryError:
        return {"fault": "memory"}, []
    except FileNotFoundError:
        return {"fault": "gone"}, []
    except Exception as error:  # noqa: BLE001  the file is not trusted: whatever it provokes is an answer
        return {"fault": type(error).__name__}, []


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until the other end closes."""
    for line in requests:
        head, blobs = answer(orjson.loads(line))
        answers.write(orjson.dumps(head | {"sizes": [len(blob) for blob in blobs]}) + b"\n")
        for blob in blobs:
            answers.write(blob)
        answers.flush()


def _limit(memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Not before the web process has gone: a child of a killed one ends with it (Linux).
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1 and len(sys.argv) > 2 and sys.argv[2] != "1":
        raise SystemExit(1)


def main() -> None:
    """Limit this process, load the codecs, serve."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # A codec that prints must not write into the answers.
    _limit(int(sys.argv[1]))
    from dicomweb.retrieve import decoding, encoding, picture  # noqa: F401  loaded before the first request

    answers.write(b'{"ready":true}\n')
    answers.flush()
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
