"""Accounts and the SMART authorization server. Entry points: `app`, `bootstrap`, `migrate`, `operator_token`.

https://hl7.org/fhir/smart-app-launch/STU2.2/
"""
