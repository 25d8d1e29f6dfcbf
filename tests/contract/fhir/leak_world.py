"""What the leak tests ask and compare: one request, two worlds, and answers that may not tell which world it is.

In the world `absent` nothing has the names that a request uses; in the world `foreign` another patient's record has
them. Each world has names of its own, of the same length: answers are compared with the names, moments and made-up ids
taken out. A request is a template, `{t}` stands for the name.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.contract.fhir.api import Api, entry, observation

EVERYONE = "system/*.cruds foramen/admin"
SYSTEM = "urn:leak"
FORM = "application/x-www-form-urlencoded"

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_HEX = re.compile(r"\b[0-9a-f]{32,36}\b")
_FILE = re.compile(r"\$bulk-file/[^\"\s]+")
_MOMENT = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)|[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} [\d:]+ GMT"
)

_DEFINITIONS = re.compile("CodeSystem|ValueSet|ConceptMap")
PATIENT_A = "leak-a"
LAUNCHED, SIGNED_IN = "launched", "signed in"
Setup = Callable[[Api, Api, "World"], Awaitable[None]]
"""Called with everyone, who the data are of (a stranger, or the asker in the world `own`), and the world."""


@dataclass(slots=True)
class World:
    """One world of names.

    `name` is the id, the identifier and the tag of everything in it, `asker` the patient to whom the token is bound,
    `owner` the patient whose record it is (None: there is none). `more` holds what a setup found or made up.
    """

    name: str
    asker: str
    owner: str | None
    more: dict[str, str] = field(default_factory=dict)

    def filled(self, template: str) -> str:
        for key, value in {"t": self.name, "asker": self.asker, **self.more}.items():
            template = template.replace("{" + key + "}", value)
        return template

    def without_names(self, text: str) -> str:
        """The text without what differs between worlds anyway."""
        for key, value in {**self.more, "t": self.name}.items():
            text = text.replace(value, f"<{key}>")
        for pattern in (_FILE, _UUID, _HEX, _MOMENT):
            text = pattern.sub("<>", text)
        return text


@dataclass(frozen=True, slots=True)
class Probe:
    """One request, by which a caller could try to learn of another's data.

    Parameters
    ----------
    owner : whether the same request by the token of the patient whose data it is gets something else than what the
        absent gets; else the route is closed to patients
    blind : the answer depends on nobody's data; then it is the same for everybody who is let in
    setup : makes what the request needs in the worlds that have an owner, makes up its names in the one without
    linked : the asker has an Observation that refers to `Observation/{t}`, and is referred to by it
    follow : the answer is the one of the job that the request starts, with its files
    scope : of the token of one patient's record
    everybody : whether a token that reaches everything may ask it; else only the patient's shows that it can fail
    in_person : the patient's own sign-in may ask it, an app that a physician launched for the patient may not
    """

    method: str
    path: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    owner: bool = True
    blind: bool = False
    setup: Setup | None = None
    linked: bool = False
    follow: bool = False
    scope: str = "patient/*.cruds"
    everybody: bool = True
    in_person: bool = False

    @property
    def scopes(self) -> str:
        """Its scope, with the audit trail where it asks for that: people's wildcard leaves it out."""
        asks = "AuditEvent" in f"{self.path} {self.body}"
        return f"{self.scope} patient/AuditEvent.rs" if asks else self.scope

    @property
    def shares(self) -> bool:
        """Whether its worlds may be those of other probes: it asks by name, and changes nothing."""
        named = "{t}" in self.path or "{t}" in str(self.body)
        harmless = self.method == "GET" or self.path.endswith("/_search")
        return named and harmless and self.setup is None and not self.follow and "AuditEvent" not in str(self)

    def __str__(self) -> str:
        said = f"{self.method} {self.path}"
        if self.body is not None and not isinstance(self.body, bytes):
            said += " " + (self.body if isinstance(self.body, str) else json.dumps(self.body))[:120]
        return said + "".join(f" {name}: {value}" for name, value in self.headers.items() if name != "content-type")


def name() -> str:
    """A name that nothing has; all are of one length."""
    return "n" + secrets.token_hex(8)


class Worlds:
    """Makes the worlds of the probes; those that change nothing share theirs."""

    def __init__(self, everyone: Api) -> None:
        self.everyone = everyone
        self._shared: dict[tuple[str, str], World] = {}

    def asker(self, probe: Probe, world: World, kind: str) -> Api:
        """The token of one patient's record: of an app that a physician launched, or of the patient in person."""
        return self._token(probe, world.asker, kind)

    def placed(self, resource: dict[str, Any], which: str) -> dict[str, Any]:
        """The resource as it is in this kind of world."""
        return resource

    def _token(self, probe: Probe, patient: str, kind: str) -> Api:
        user = f"Patient/{patient}" if kind == SIGNED_IN else "Practitioner/d"
        return self.everyone.as_(probe.scopes, patient=patient, fhirUser=user, client_id="app", sub="asker")

    async def make(self, probe: Probe, which: str, kind: str = LAUNCHED) -> World:
        """Take a new name, and put the record of a patient of this name on the server unless it is `absent`.

        Parameters
        ----------
        which : ``absent``, ``foreign`` (the asker is another patient) or ``own``
        """
        if not probe.shares:
            return await self._made(probe, which, kind)
        if (which, kind) not in self._shared:
            self._shared[which, kind] = await self._made(probe, which, kind)
        return self._shared[which, kind]

    async def _made(self, probe: Probe, which: str, kind: str) -> World:
        fresh = name()
        world = World(fresh, fresh if which == "own" else PATIENT_A, None if which == "absent" else fresh)
        linked = probe.linked or probe.shares
        resources = [link_of(fresh, world.asker)] if linked else []
        if world.owner:
            resources += [self.placed(item, which) for item in record_of(fresh, linked=linked)]
            resources += terminology_of(fresh) if probe.shares or _DEFINITIONS.match(probe.path) else []
        if resources:
            entries = (entry("PUT", f"{item['resourceType']}/{item['id']}", item) for item in resources)
            answer = await self.everyone.transaction(*entries)
            assert answer.status_code == 200, answer.text
        if probe.setup is not None:
            stranger = self.everyone.as_(EVERYONE, client_id="other-client", sub="other-client")
            owner = self._token(probe, fresh, kind) if which == "own" else stranger
            await probe.setup(self.everyone, owner, world)
        return world


def link_of(t: str, asker: str) -> dict[str, Any]:
    """An Observation of the asker that refers to the one called `t`."""
    link = observation(f"Patient/{asker}", code="LINK", derivedFrom=[{"reference": f"Observation/{t}"}])
    return {**link, "id": f"x-{t}"}


def record_of(t: str, *, linked: bool = False) -> list[dict[str, Any]]:
    """A patient and a record, all of whose parts are called `t`."""
    me = {"reference": f"Patient/{t}"}
    about = {"identifier": [{"system": SYSTEM, "value": t}]}
    seen: dict[str, Any] = {"hasMember": [{"reference": f"Observation/x-{t}"}]} if linked else {}
    return [
        {"resourceType": "Patient", "id": t, **about, "name": [{"family": f"SYNTHETIC{t}"}]},
        {
            **observation(f"Patient/{t}", valueString=f"SYNTHETIC {t}", encounter={"reference": f"Encounter/{t}"}),
            "id": t,
            "meta": {"tag": [{"system": SYSTEM, "code": t}]},
            **about,
            **seen,
        },
        {
            "resourceType": "Encounter",
            "id": t,
            **about,
            "status": "finished",
            "class": {"code": "AMB"},
            "subject": me,
        },
        {"resourceType": "Binary", "id": t, "contentType": "text/plain", "securityContext": me, "data": "U1lOVEg="},
        {
            "resourceType": "Provenance",
            "id": t,
            "target": [{"reference": f"Observation/{t}"}, me],
            "recorded": "2026-01-05T10:00:00Z",
            "agent": [{"who": {"display": "SYNTHETIC"}}],
        },
        {
            "resourceType": "List",
            "id": t,
            **about,
            "status": "current",
            "mode": "working",
            "subject": me,
            "entry": [{"item": {"reference": f"Observation/{t}"}}],
        },
        {
            "resourceType": "Group",
            "id": t,
            **about,
            "type": "person",
            "actual": True,
            "member": [{"entity": me}],
        },
    ]


def terminology_of(t: str) -> list[dict[str, Any]]:
    """Definitions that a token of one patient's record may not read."""
    known: dict[str, Any] = {"id": t, "status": "active"}
    system = f"urn:system:{t}"
    concepts = [{"code": "one", "display": f"SYNTHETIC {t}"}, {"code": "two"}]
    element = [{"code": "one", "target": [{"code": "two", "equivalence": "equal"}]}]
    return [
        {**known, "resourceType": "CodeSystem", "url": system, "content": "complete", "concept": concepts},
        {
            **known,
            "resourceType": "ValueSet",
            "url": f"urn:set:{t}",
            "compose": {"include": [{"system": system, "concept": [{"code": "one"}]}]},
        },
        {
            **known,
            "resourceType": "ConceptMap",
            "url": f"urn:map:{t}",
            "group": [{"source": system, "target": system, "element": element}],
        },
    ]


@dataclass(frozen=True, slots=True)
class Answer:
    """What of an answer could tell something: status, headers and body, without names."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: str


async def ask(api: Api, probe: Probe, world: World, *, head: bool = False) -> list[Answer]:
    """Ask, and follow what was started to its end; a GET is asked as HEAD too, where wanted."""
    responses = [await send(api, probe, world)]
    if probe.follow and responses[0].status_code == 202:
        responses += await _followed(api, responses[0])
    if head and probe.method == "GET" and not probe.follow:
        responses.append(await _request(api, "HEAD", probe, world))
    return [_answer(response, world) for response in responses]


async def send(api: Api, probe: Probe, world: World) -> httpx.Response:
    return await _request(api, probe.method, probe, world)


async def _request(api: Api, method: str, probe: Probe, world: World) -> httpx.Response:
    headers = {key: world.filled(value) for key, value in probe.headers.items()}
    path = "/fhir/" + world.filled(probe.path)
    if probe.body is None:
        return await api.http.request(method, path, headers={**api.headers, **headers})
    body = probe.body if isinstance(probe.body, bytes | str) else json.dumps(probe.body)
    return await api.send(method, path, body if isinstance(body, bytes) else world.filled(body).encode(), **headers)


async def _followed(api: Api, started: httpx.Response) -> list[httpx.Response]:
    url = started.headers["content-location"]
    for _ in range(600):
        found = await api.get(url)
        if found.status_code != 202:
            break
        await asyncio.sleep(0.02)
    else:
        raise AssertionError("the job does not end")
    files = found.json().get("output", []) if found.status_code == 200 else []
    return [found, *[await api.get(file["url"]) for file in sorted(files, key=lambda file: file["type"])]]


def _answer(response: httpx.Response, world: World) -> Answer:
    headers = {name: value for name, value in response.headers.items() if name not in ("date", "traceparent")}
    # A job's file is named by the hash of what is in it, which holds the moments of writing.
    if "$bulk-file/" in str(response.request.url):
        headers.pop("etag", None)
    body = world.without_names(response.text)
    if headers.get("content-type", "").endswith("ndjson"):  # Lines stand in the order of names, and those are random.
        body = "\n".join(sorted(body.splitlines()))
    told = tuple(sorted((name, world.without_names(value)) for name, value in headers.items()))
    return Answer(response.status_code, told, body)


async def standing(everyone: Api, world: World) -> tuple[int, str]:
    """How the Observation stands: to see that a question changed nothing."""
    found = await everyone.get(f"/fhir/Observation/{world.name}")
    return found.status_code, found.headers.get("etag", "")


def parameters(**values: Any) -> dict[str, Any]:
    """A Parameters resource; a name is written with its type, e.g. `mode_valueCode`."""
    parts = []
    for key, value in values.items():
        name, _, kind = key.rpartition("_")
        parts.append({"name": name, kind: value})
    return {"resourceType": "Parameters", "parameter": parts}
