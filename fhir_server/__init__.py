"""The record: FHIR R4 REST API, search, validation, access, audit. https://hl7.org/fhir/R4/http.html"""
