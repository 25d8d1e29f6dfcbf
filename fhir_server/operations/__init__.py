"""FHIR operations (`$name`): one module each, with its routes in `ROUTES`. https://hl7.org/fhir/R4/operations.html"""
