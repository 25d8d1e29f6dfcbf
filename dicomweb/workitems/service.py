"""The transactions of the Worklist Service (DICOM PS3.18 §11.4 to §11.12) over the Tasks of the record."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx
import orjson
from starlette.requests import Request
from starlette.responses import Response

from dicomweb.consents.closed_workitems import OpenWorkitems
from dicomweb.media_types import Offer, negotiate
from dicomweb.multipart import boundary_of, closing, new_boundary, part_head
from dicomweb.patient_match import match_patient
from dicomweb.store.native_xml import MalformedModelError, from_xml, to_xml
from dicomweb.workitems import states
from dicomweb.workitems.channels import Channels
from dicomweb.workitems.matching import filter_of, matches, narrowed
from dicomweb.workitems.record import Record
from dicomweb.workitems.reports import CANCEL_REQUESTED, STATE_REPORT
from dicomweb.workitems.states import Refused
from dicomweb.workitems.subscriptions import Subscriber, Subscriptions
from dicomweb.workitems.workitem import (
    CANCELED,
    COMPLETED,
    FILTERED_WORKLIST,
    IN_PROGRESS,
    LOCK,
    STATE,
    TRANSACTION,
    WORKLIST,
    WORKLIST_LABEL,
    Model,
    Resource,
    attribute,
    digest_of,
    kept_attributes,
    lock_of,
    state_of,
    value_of,
    with_attributes,
    workitem_of,
)
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    UnsupportedMediaTypeError,
)
from foramen.kernel.http_edge import header, read_body
from foramen.kernel.settings import Settings
from foramen.kernel.tokens import bearer_token
from terminology import systems

DICOM_JSON, DICOM_XML = "application/dicom+json", "application/dicom+xml"
BODIES = (DICOM_JSON, DICOM_XML)
SEVERAL_OFFERS = (Offer(DICOM_JSON), Offer("application/json"), Offer(DICOM_XML, multipart=True))
ONE_OFFERS = (*SEVERAL_OFFERS, Offer(DICOM_XML))
_MOST_BYTES = 4 * 1024 * 1024
_MOST_SEEN = 20_000
_LIMIT, _MOST_LIMIT = 200, 1000
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_AETITLE = re.compile(r"[ -\[\]-~]{1,16}")
_PAGING = frozenset(("limit", "offset", "includefield", "fuzzymatching", "accept"))
_STATUS = {IN_PROGRESS: "in-progress", COMPLETED: "completed", CANCELED: "cancelled"}


@dataclass(frozen=True, slots=True)
class _Call:
    """One request: who asks, and the record as they see it."""

    request: Request
    context: AccessContext
    record: Record

    @property
    def uid(self) -> str:
        return str(self.request.path_params["workitem"])


class Worklist:
    """Every transaction answers a Starlette response; `Refused` is one too."""

    def __init__(
        self,
        settings: Settings,
        http: httpx.AsyncClient,
        subscriptions: Subscriptions,
        channels: Channels,
        open_workitems: OpenWorkitems,
    ) -> None:
        self._settings, self._http, self._open = settings, http, open_workitems
        self._subscriptions, self._channels = subscriptions, channels
        self._base = settings.dicom_web_base

    def record(self, token: str, trace_id: str, context: AccessContext) -> Record:
        """Return the record as the holder of a token sees it."""
        shown = partial(self._open.of, context)
        return Record(f"{self._settings.internal_origin}/fhir", self._http, token, trace_id, shown)

    async def answer(self, name: str, request: Request, context: AccessContext, trace_id: str) -> Response:
        """Do one transaction.

        Raises
        ------
        InteropError
            What the record or the request itself forbids.
        """
        record = self.record(bearer_token(header(request, b"authorization")), trace_id, context)
        try:
            return await getattr(self, name)(_Call(request, context, record))  # type: ignore[no-any-return]
        except Refused as refused:
            return Response(status_code=refused.status, headers=self._warning(refused.warning))

    def _warning(self, text: str) -> dict[str, str]:
        return {"Warning": f"299 {self._base}: {text}"}

    async def create(self, call: _Call) -> Response:
        """POST /workitems (§11.4)."""
        query = call.request.query_params
        named = query.get("workitem") or query.get("AffectedSOPInstanceUID") or next(iter(query), "")
        call.context.reach("Task", "c")
        if named and await self._exists(call, named):
            raise ConflictError("The workitem exists already")
        model = await _dataset(call.request)
        uid = named or value_of(model, "00080018") or f"2.25.{uuid.uuid4().int}"
        if not isinstance(uid, str) or not is_uid(uid):
            raise InvalidRequestError("The workitem's UID is not a UID", issue_code="value")
        if (fault := states.fault_of_new(model)) is not None:
            raise InvalidRequestError(f"{fault} does not fit a new workitem", issue_code="required")
        if not named and await self._exists(call, uid):
            raise ConflictError("The workitem exists already")
        changed = value_of(model, WORKLIST_LABEL) is None
        if changed:
            model = model | {WORKLIST_LABEL: attribute("LO", "FORAMEN")}
        task = with_attributes(await self._new_task(call, model, uid), model, _now())
        await call.record.fhir.create(task)
        headers = {"Location": f"{self._base}/workitems/{uid}"}
        return Response(
            status_code=201,
            headers=headers | (self._warning("The Workitem was created with modifications.") if changed else {}),
        )

    async def _exists(self, call: _Call, uid: str) -> bool:
        if not is_uid(uid):
            raise InvalidRequestError("The workitem's UID is not a UID", issue_code="value")
        try:
            await call.record.task(uid)
        except NotFoundError:
            return False
        return True

    async def _new_task(self, call: _Call, model: Model, uid: str) -> Resource:
        task: Resource = {
            "resourceType": "Task",
            "identifier": [{"system": systems.DICOM_UID, "value": f"urn:oid:{uid}"}],
            "status": "requested",
            "intent": "order",
            "authoredOn": _now(),
        }
        item = value_of(model, "00404021")
        if isinstance(item, dict) and (study := value_of(item, "0020000D")):
            task["groupIdentifier"] = {"system": systems.DICOM_UID, "value": f"urn:oid:{study}"}
        if value_of(model, "00100020"):
            found = await match_patient(call.record.fhir, model, self._settings.default_patient_id_issuer)
            if found.reference is not None:
                task["for"] = {"reference": found.reference}
        return task

    async def retrieve(self, call: _Call) -> Response:
        """GET /workitems/{workitem} (§11.5)."""
        task = await call.record.task(call.uid)
        people = await call.record.patients([task])
        model = workitem_of(task, people.get(str(task.get("for", {}).get("reference"))), self._base)
        return _answer(call.request, [model], {"Content-Location": f"{self._base}/workitems/{call.uid}"})

    async def update(self, call: _Call) -> Response:
        """POST /workitems/{workitem} (§11.6)."""
        call.context.reach("Task", "u")
        task = await call.record.task(call.uid)
        model = await _dataset(call.request)
        query = call.request.query_params
        sent = query.get("transaction-uid") or query.get("transaction") or next(iter(query), "")
        uid = value_of(model, TRANSACTION) or sent or None
        states.require_updatable(state_of(task), lock_of(task), uid)
        if not states.FIXED.isdisjoint(model):
            raise InvalidRequestError("An attribute cannot be changed by an update", issue_code="business-rule")
        await call.record.write(with_attributes(task, kept_attributes(task) | model, _now()))
        return Response(status_code=200)

    async def change_state(self, call: _Call) -> Response:
        """PUT /workitems/{workitem}/state (§11.7)."""
        call.context.reach("Task", "u")
        task = await call.record.task(call.uid)
        model = await _dataset(call.request)
        requested, uid = value_of(model, STATE), value_of(model, TRANSACTION)
        if uid is not None and not (isinstance(uid, str) and is_uid(uid)):
            raise Refused(400, states.INCORRECT)
        warning = states.change(state_of(task), requested, lock_of(task), uid)
        if warning is not None:
            return Response(status_code=200, headers=self._warning(warning))
        states.require_final(workitem_of(task, None, self._base), requested)
        changed = task | {"status": _STATUS[requested], "lastModified": _now()}
        if requested == IN_PROGRESS:
            changed["identifier"] = [*task.get("identifier", ()), {"system": LOCK, "value": digest_of(str(uid))}]
            changed["businessStatus"] = {"text": "claimed"}
        try:
            await call.record.write(changed)
        except ConflictError:
            raise Refused(409, states.INCONSISTENT) from None
        return Response(status_code=200)

    async def request_cancellation(self, call: _Call) -> Response:
        """POST /workitems/{workitem}/cancelrequest (§11.8, PS3.4 §CC.2.2)."""
        call.context.reach("Task", "u")
        task = await call.record.task(call.uid)
        state = state_of(task)
        model = await _dataset(call.request, required=False)
        if state == COMPLETED:
            raise Refused(409, states.INCONSISTENT)
        if state == CANCELED:
            warning = self._warning("The UPS is already in the requested state of CANCELED.")
            return Response(status_code=409, headers=warning)
        if state == IN_PROGRESS:
            shown = workitem_of(task, None, self._base)
            more = {f"t{tag}": model[tag] for tag in ("00741238", "0074100E", "0074100A", "0074100C") if tag in model}
            await self._channels.send(shown, lambda channel: channel.put(shown, CANCEL_REQUESTED, **more))
            return Response(status_code=202)
        reason = {"statusReason": {"text": str(value_of(model, "00741238"))}} if value_of(model, "00741238") else {}
        try:
            await call.record.write(task | {"status": "cancelled", "lastModified": _now()} | reason)
        except ConflictError:
            raise Refused(409, states.INCONSISTENT) from None
        return Response(status_code=202)

    async def search(self, call: _Call) -> Response:
        """GET /workitems (§11.9); who may not see a Task does not find it, whatever is asked."""
        query = call.request.query_params
        limit, offset = _number(query.get("limit"), _LIMIT), _number(query.get("offset"), 0)
        limit = min(limit, _MOST_LIMIT)
        wanted = filter_of([(name, value) for name, value in query.multi_items() if name not in _PAGING])
        asked = [*narrowed(wanted), ("_sort", "authored-on"), ("_count", "200")]
        found: list[Model] = []
        tasks: list[Resource] = []
        seen, more = 0, False
        async for task in call.record.fhir.search_pages("Task", asked):
            seen += 1
            tasks.append(task)
            if len(tasks) == 200:
                found += await self._matching(call, tasks, wanted)
                tasks = []
            if len(found) > offset + limit or seen >= _MOST_SEEN:
                more = True
                break
        found += await self._matching(call, tasks, wanted)
        page = found[offset : offset + limit]
        more = more or len(found) > offset + limit
        warning = self._warning("There are more results than were returned; use limit and offset") if more else {}
        if not page:
            return Response(status_code=204, headers=warning)
        return _answer(call.request, page, warning, several=True)

    async def _matching(self, call: _Call, tasks: list[Resource], wanted: Any) -> list[Model]:
        tasks = await call.record.shown(tasks)
        people = await call.record.patients(tasks)
        models = [
            workitem_of(task, people.get(str(task.get("for", {}).get("reference"))), self._base) for task in tasks
        ]
        return [model for model in models if value_of(model, "00080018") and matches(model, wanted)]

    async def subscribe(self, call: _Call) -> Response:
        """POST /workitems/{workitem}/subscribers/{aetitle} (§11.10)."""
        subscriber, query = await self._subscriber(call), call.request.query_params
        keys = {}
        if call.uid == FILTERED_WORKLIST:
            text = query.get("filter", "")
            pairs = [pair.partition("=") for pair in re.split(r",(?=[A-Za-z0-9.]+=)", text) if pair]
            keys = filter_of([(name.strip(), value) for name, _, value in pairs])
            if not keys:
                raise InvalidRequestError("A filtered worklist needs a filter", issue_code="required")
        await self._subscriptions.put(subscriber, call.uid, keys)
        await self._report_now(call, subscriber)
        origin = re.sub("^http", "ws", self._settings.origin)
        headers = {"Content-Location": f"{origin}/dicom-web/ws/subscribers/{subscriber.aetitle}"}
        if query.get("deletionlock", "false").lower() == "true":
            headers |= self._warning("Deletion Lock not granted.")
        return Response(status_code=201, headers=headers)

    async def _report_now(self, call: _Call, subscriber: Subscriber) -> None:
        """Report the state the workitem is in now, as the first of its reports (PS3.4 §CC.2.3.3)."""
        if call.uid in (WORKLIST, FILTERED_WORKLIST):
            return
        model = workitem_of(await call.record.task(call.uid), None, self._base)
        for channel in self._channels.of(subscriber):
            channel.put(model, STATE_REPORT)

    async def unsubscribe(self, call: _Call) -> Response:
        """DELETE /workitems/{workitem}/subscribers/{aetitle} (§11.11)."""
        if not await self._subscriptions.remove(await self._subscriber(call), call.uid):
            raise NotFoundError("No such subscription")
        return Response(status_code=200)

    async def suspend(self, call: _Call) -> Response:
        """POST /workitems/{worklist}/subscribers/{aetitle}/suspend (§11.12)."""
        subscriber = await self._subscriber(call)
        if call.uid not in (WORKLIST, FILTERED_WORKLIST):
            raise InvalidRequestError("Only the subscription of a worklist is suspended", issue_code="business-rule")
        if not await self._subscriptions.suspend(subscriber, call.uid):
            raise NotFoundError("No such subscription")
        return Response(status_code=200)

    async def _subscriber(self, call: _Call) -> Subscriber:
        """Who subscribes, once it is known that they may see what they subscribe to."""
        call.context.reach("Task", "r")
        aetitle = str(call.request.path_params["aetitle"])
        if not _AETITLE.fullmatch(aetitle) or not aetitle.strip():
            raise InvalidRequestError("The AE title is malformed", issue_code="value")
        if call.uid not in (WORKLIST, FILTERED_WORKLIST):
            await call.record.task(call.uid)
        return Subscriber.of(call.context, aetitle)


def is_uid(text: str) -> bool:
    """Whether a text is a UID (PS3.5 §9.1)."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _number(text: str | None, default: int) -> int:
    if text is None:
        return default
    if not text.isdigit() or len(text) > 9:
        raise InvalidRequestError("limit and offset are numbers", issue_code="value")
    return int(text)


async def _dataset(request: Request, *, required: bool = True) -> Model:
    """Return the one data set of the body, JSON or XML."""
    body = await read_body(request, _MOST_BYTES)
    content_type = request.headers.get("content-type", DICOM_JSON)
    kind = content_type.partition(";")[0].strip().lower()
    if not body.strip():
        if required:
            raise InvalidRequestError("The body is empty", issue_code="required")
        return {}
    if kind == "multipart/related":
        _, boundary = boundary_of(content_type)
        body = body.split(b"--" + boundary)[1].partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        kind = DICOM_XML
    try:
        if kind in (DICOM_XML, "text/xml", "application/xml"):
            found: Any = from_xml(body)
        elif kind in (DICOM_JSON, "application/json"):
            found = orjson.loads(body)
        else:
            raise UnsupportedMediaTypeError(f"The body must be {DICOM_JSON} or {DICOM_XML}")
    except (orjson.JSONDecodeError, MalformedModelError) as exc:
        raise InvalidRequestError("The body cannot be read", issue_code="structure") from exc
    found = found[0] if isinstance(found, list) and len(found) == 1 else found
    if not isinstance(found, dict) or not all(isinstance(item, dict) for item in found.values()):
        raise InvalidRequestError("The body is not one data set", issue_code="structure")
    return found


def _answer(request: Request, models: list[Model], headers: dict[str, str], *, several: bool = False) -> Response:
    offer = negotiate(request, SEVERAL_OFFERS if several else ONE_OFFERS)
    if offer.media_type != DICOM_XML:
        return Response(orjson.dumps(models), headers=headers, media_type=DICOM_JSON)
    if not offer.multipart:
        return Response(to_xml(models[0]), headers=headers, media_type=DICOM_XML)
    boundary = new_boundary()
    parts = [part_head(boundary, {"Content-Type": DICOM_XML}) + to_xml(model) for model in models]
    media_type = f'multipart/related; type="{DICOM_XML}"; boundary={boundary}'
    return Response(b"".join(parts) + closing(boundary), headers=headers | {"Content-Type": media_type})
