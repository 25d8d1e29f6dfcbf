"""The OpenAPI page of the FHIR API, generated from the routes that serve it. https://spec.openapis.org/oas/v3.1.1"""
