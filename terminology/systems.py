"""Canonical URIs.

`BASE` is a reserved example host (RFC 2606): whoever publishes their own changes one line.
"""

BASE = "https://foramen.example/fhir"

FINDING = f"{BASE}/CodeSystem/finding"
MORPHOLOGY = f"{BASE}/CodeSystem/morphology"
PFIRRMANN = f"{BASE}/CodeSystem/pfirrmann"
LEVEL = f"{BASE}/CodeSystem/level"
OPTION = f"{BASE}/CodeSystem/option"
TAG = f"{BASE}/CodeSystem/tag"
TASK_CODE = f"{BASE}/CodeSystem/task-code"
TASK_REASON = f"{BASE}/CodeSystem/task-reason"
COMPONENT = f"{BASE}/CodeSystem/component"

IDENTIFIER_TASK = f"{BASE}/identifier/task"
IDENTIFIER_RESULT = f"{BASE}/identifier/result"
IDENTIFIER_MODEL = f"{BASE}/identifier/model"
IDENTIFIER_PATIENT = f"{BASE}/identifier/patient"
EXTENSION_RULES = f"{BASE}/StructureDefinition/rule-verdict"
EXTENSION_VERDICT = f"{BASE}/StructureDefinition/option-verdict"
RULE_LIBRARY = f"{BASE}/Library/rules"

DICOM_UID = "urn:dicom:uid"
DCM = "http://dicom.nema.org/resources/ontology/DCM"
UCUM = "http://unitsofmeasure.org"
LOINC = "http://loinc.org"
ICD10 = "http://hl7.org/fhir/sid/icd-10"
OBSERVATION_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
DATA_ABSENT_REASON = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
PROVENANCE_AGENT = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
OBSERVATION_INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"

IDENTIFIER_TRACE = f"{BASE}/identifier/trace"
EXTENSION_SEGMENTATION = f"{BASE}/StructureDefinition/segmentation-series"
EXTENSION_STRUCTURED_REPORT = f"{BASE}/StructureDefinition/structured-report-series"
EXTENSION_SOURCE_SERIES = f"{BASE}/StructureDefinition/source-series"
EXTENSION_MISSING_INPUT = f"{BASE}/StructureDefinition/missing-input"
EXTENSION_HOLD = f"{BASE}/StructureDefinition/hold"
EXTENSION_FIGURE = f"{BASE}/StructureDefinition/published-figure"
INTAKE_QUESTIONNAIRE = f"{BASE}/Questionnaire/ldh-intake"
