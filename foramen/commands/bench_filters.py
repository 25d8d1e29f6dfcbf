"""What access rules cost a search: the same search with a token that reaches everything and with ones that are bounded.

Part of `foramen bench auth`. All tokens may see what the search finds, so that each pair answers with the same page.
"""

from __future__ import annotations

import re
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path

from foramen.commands.bench_fhir import Bench, running
from terminology.systems import FINDING

_PATIENT = "b0"
_CONNECTIONS = 8
_TURN_S = 1
_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category|imaging"
_ONE_PATIENT = f"/fhir/Observation?patient={_PATIENT}&code={FINDING}%7CF01&date=ge2020"
_NEWEST = "/fhir/Observation?code=F01&_sort=-date&_count=50"


@dataclass(frozen=True, slots=True)
class Filter:
    """An access rule: the token that is bounded by it, and the search that is asked."""

    name: str
    path: str
    scopes: str
    patient: str | None = None
    fhir_user: str | None = None


FILTERS = (
    Filter("patient compartment", _ONE_PATIENT, "patient/*.rs", _PATIENT),
    Filter("patient compartment and release state", _ONE_PATIENT, "patient/*.rs", _PATIENT, f"Patient/{_PATIENT}"),
    Filter("granular scope, one patient", _ONE_PATIENT, f"user/Observation.rs?category={_CATEGORY}"),
    Filter("granular scope, newest fifty", _NEWEST, f"user/Observation.rs?category={_CATEGORY}"),
)


def costs(folder: Path, seconds: int, repeats: int, size: int = 10_000) -> dict[str, float]:
    """Return for each rule how many times longer a search takes than without it.

    Both are asked by turns of a second; each turn is compared with the one beside it, as the machine's speed may change
    within seconds, and the median of `seconds` × `repeats` comparisons is taken.
    """
    with running(folder, seconds, repeats, 1) as bench:
        bench.grow(size)
        return {rule.name: _cost(bench, rule) for rule in FILTERS}


def _cost(bench: Bench, rule: Filter) -> float:
    bounded = _token(bench, rule)
    _rate(bench, rule.path, bounded, 1)
    ratios = [
        _rate(bench, rule.path, bench.token, _TURN_S) / _rate(bench, rule.path, bounded, _TURN_S)
        for _ in range(bench.seconds * bench.repeats)
    ]
    return statistics.median(ratios)


def _token(bench: Bench, rule: Filter) -> str:
    from foramen.identity.database import utc_now
    from foramen.identity.oauth.signing import TokenSigner
    from foramen.kernel.settings import Settings

    token = TokenSigner(Settings(home=bench.folder, port=bench.port)).access_token(
        subject="SYNTHETIC", client_id="bench", scope=rule.scopes, now=utc_now(), lifetime_s=86_400,
        patient=rule.patient, fhir_user=rule.fhir_user,
    )  # fmt: skip
    return str(token.text)


def _rate(bench: Bench, path: str, token: str, seconds: int) -> float:
    """Return requests per second of one run of wrk; the audit records of what was done before are indexed by then."""
    bench.index_audit()
    command = ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{seconds}s", "-H", f"Authorization: Bearer {token}",
               f"http://127.0.0.1:{bench.port}{path}"]  # fmt: skip
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in printed or "Socket errors" in printed:
        raise RuntimeError("a search failed")
    found = re.search(r"Requests/sec:\s+([0-9.]+)", printed)
    if found is None:
        raise RuntimeError("wrk printed no rate")
    return float(found[1])
