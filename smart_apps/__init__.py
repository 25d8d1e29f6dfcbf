"""The apps for clinicians (TypeScript) and the server of their built files.

https://hl7.org/fhir/smart-app-launch/STU2.2/
"""
