"""From resources to index values and from queries to conditions. Knows no SQL text. https://hl7.org/fhir/R4/search.html"""
