"""The reference of a release: its scores over a period that a person chose, frozen in a file without persons.

One list of scores a patient, sorted, so that nothing tells who or when; the file's SHA-256 names it in each watch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai_services.monitoring.distributions import Sample


class WatchReferenceError(Exception):
    """The file cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Scores of a version over a period.

    Parameters
    ----------
    name, version : of the model
    since, until : FHIR instants
    samples : by score
    digest : SHA-256 of the file
    """

    name: str
    version: str
    since: str
    until: str
    samples: Mapping[str, Sample]
    digest: str


def written(name: str, version: str, period: tuple[str, str], samples: Mapping[str, Sample]) -> bytes:
    """The file of a reference; the same samples are the same bytes."""
    document = {
        "what": "scores of a model version, one list a patient, without persons",
        "name": name,
        "version": version,
        "since": period[0],
        "until": period[1],
        "scores": {
            score: {"classes": list(sample.classes), "by_patient": [list(values) for values in sample.by_patient]}
            for score, sample in sorted(samples.items())
        },
    }
    return (json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n").encode()


def read_reference(path: Path, name: str, version: str) -> Reference:
    """Read a reference.

    Raises
    ------
    WatchReferenceError
        It cannot be read, or is of another model or version.
    """
    try:
        content = path.read_bytes()
        document: dict[str, Any] = json.loads(content)
        samples = {
            score: Sample(tuple(tuple(map(float, values)) for values in item["by_patient"]), tuple(item["classes"]))
            for score, item in document["scores"].items()
        }
        found = Reference(
            document["name"],
            document["version"],
            document["since"],
            document["until"],
            samples,
            hashlib.sha256(content).hexdigest(),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise WatchReferenceError("the reference cannot be read") from exc
    if (found.name, found.version) != (name, version):
        raise WatchReferenceError("the reference is of another model or version")
    return found
