"""Who may see what: scopes and the patient compartment. https://hl7.org/fhir/R4/compartmentdefinition.html"""
