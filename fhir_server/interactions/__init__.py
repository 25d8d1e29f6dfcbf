"""The RESTful interactions, one a file. https://hl7.org/fhir/R4/http.html"""
