"""FHIR XML, both ways, by the element tables of R4 on lxml (ADR 0012). https://hl7.org/fhir/R4/xml.html"""

from fhir_server.formats.xml_reading import to_json
from fhir_server.formats.xml_writing import to_xml

__all__ = ("to_json", "to_xml")
