"""AuditEvent for each call and each refusal. https://hl7.org/fhir/R4/auditevent.html"""
