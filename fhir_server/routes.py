"""Every route of the FHIR API in one table: method, path, handler, required SMART action, audit code.

https://hl7.org/fhir/R4/http.html. Actions: c create, r read, u update, d delete, s search; empty: the entries decide.
"""

from __future__ import annotations

from fhir_server.interactions.capabilities import capabilities
from fhir_server.interactions.create import create
from fhir_server.interactions.delete import delete
from fhir_server.interactions.history import history_instance, history_system, history_type
from fhir_server.interactions.read import read
from fhir_server.interactions.search import search, search_post
from fhir_server.interactions.transaction import transaction_or_batch
from fhir_server.interactions.update import update
from fhir_server.interactions.vread import vread
from fhir_server.route import Route

ROUTES: tuple[Route, ...] = (
    Route("GET", "metadata", capabilities, "", "capabilities", anonymous=True),
    Route("POST", "", transaction_or_batch, "", "transaction", "transaction"),
    Route("GET", "_history", history_system, "", "history-system", "history-system"),
    Route("GET", "{type}/{id}", read, "r", "read", "read"),
    Route("GET", "{type}/{id}/_history/{version}", vread, "r", "vread", "vread"),
    Route("PUT", "{type}/{id}", update, "u", "update", "update"),
    Route("PUT", "{type}", update, "u", "update", "update"),
    Route("DELETE", "{type}/{id}", delete, "d", "delete", "delete"),
    Route("DELETE", "{type}", delete, "d", "delete", "delete"),
    Route("GET", "{type}/{id}/_history", history_instance, "r", "history-instance", "history-instance"),
    Route("GET", "{type}/_history", history_type, "s", "history-type", "history-type"),
    Route("POST", "{type}", create, "c", "create", "create"),
    Route("GET", "{type}", search, "s", "search-type", "search-type"),
    Route("POST", "{type}/_search", search_post, "s", "search-type", "search-type"),
)
