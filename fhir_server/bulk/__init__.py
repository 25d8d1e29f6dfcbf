"""Bulk export and import, pseudonymised export. https://hl7.org/fhir/uv/bulkdata/STU2/"""
