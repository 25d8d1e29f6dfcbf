"""OAuth 2.0, OpenID Connect and SMART App Launch: clients, grants, tokens, launches, consents of apps.

https://hl7.org/fhir/smart-app-launch/STU2.2/
"""
