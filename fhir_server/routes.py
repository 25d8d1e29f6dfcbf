"""Every route of the FHIR API in one table: method, path, handler, required SMART action, audit code.

https://hl7.org/fhir/R4/http.html. Actions: c create, r read, u update, d delete, s search; empty: the entries decide.
"""

from __future__ import annotations

from fhir_server.interactions import asynchronous as asynchronous_requests
from fhir_server.interactions.asynchronous import asynchronous
from fhir_server.interactions.capabilities import capabilities
from fhir_server.interactions.create import create
from fhir_server.interactions.delete import delete
from fhir_server.interactions.history import history_instance, history_system, history_type
from fhir_server.interactions.patch import patch
from fhir_server.interactions.read import read
from fhir_server.interactions.search import search, search_post
from fhir_server.interactions.search_compartment import search_compartment, search_compartment_post
from fhir_server.interactions.search_system import search_system, search_system_post
from fhir_server.interactions.transaction import transaction_or_batch
from fhir_server.interactions.update import update
from fhir_server.interactions.vread import vread
from fhir_server.openapi.page import openapi
from fhir_server.operations import (
    access_log,
    bulk,
    bulk_import,
    closed_records,
    erase,
    everything,
    expunge,
    lastn,
    legal_hold,
    meta,
    packages,
    reindex,
    subject_export,
    terminology,
    validate,
)
from fhir_server.route import Route

ROUTES: tuple[Route, ...] = (
    Route("GET", "metadata", capabilities, "", "capabilities", anonymous=True),
    Route("GET", "openapi.json", openapi, "", "capabilities", anonymous=True),
    Route("POST", "", asynchronous(transaction_or_batch), "", "transaction", "transaction"),
    Route("GET", "_history", history_system, "", "history-system", "history-system"),
    Route("GET", "{type}/{id}", read, "r", "read", "read"),
    Route("GET", "{type}/{id}/_history/{version}", vread, "r", "vread", "vread"),
    Route("PUT", "{type}/{id}", update, "u", "update", "update"),
    Route("PUT", "{type}", update, "u", "update", "update"),
    Route("PATCH", "{type}/{id}", patch, "u", "patch", "patch"),
    Route("PATCH", "{type}", patch, "u", "patch", "patch"),
    Route("DELETE", "{type}/{id}", delete, "d", "delete", "delete"),
    Route("DELETE", "{type}", delete, "d", "delete", "delete"),
    Route("GET", "{type}/{id}/_history", history_instance, "r", "history-instance", "history-instance"),
    Route("GET", "{type}/_history", history_type, "s", "history-type", "history-type"),
    Route("POST", "{type}", create, "c", "create", "create"),
    Route("GET", "{type}", asynchronous(search), "s", "search-type", "search-type"),
    Route("POST", "{type}/_search", asynchronous(search_post), "s", "search-type", "search-type"),
    Route("GET", "", asynchronous(search_system), "", "search-system", "search-system"),
    Route("POST", "_search", asynchronous(search_system_post), "", "search-system", "search-system"),
    Route("GET", "{type}/{id}/{member}", asynchronous(search_compartment), "", "search-type"),
    Route("POST", "{type}/{id}/{member}/_search", asynchronous(search_compartment_post), "", "search-type"),
    *asynchronous_requests.ROUTES,
    *access_log.ROUTES,
    *bulk.ROUTES,
    *bulk_import.ROUTES,
    *closed_records.ROUTES,
    *erase.ROUTES,
    *everything.ROUTES,
    *expunge.ROUTES,
    *lastn.ROUTES,
    *legal_hold.ROUTES,
    *meta.ROUTES,
    *reindex.ROUTES,
    *subject_export.ROUTES,
    *terminology.ROUTES,
    *packages.ROUTES,
    *validate.ROUTES,
)
