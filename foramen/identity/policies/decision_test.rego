package foramen.decision_test

import data.foramen.decision

physician := {
	"role": "physician",
	"granted": [],
	"lent": [],
	"withdrawn": [],
	"scopes": ["user/*.rs", "user/Observation.u"],
	"patient": null,
	"type": "Observation",
	"action": "r",
	"subject": "p1",
	"verified": true,
	"consent": null,
	"institutions": "shared",
	"institution": null,
	"managed_by": null,
	"break_glass": null,
}

divided := object.union(physician, {"institutions": "separate", "institution": "a", "managed_by": "a"})

ill := object.union(physician, {"role": "patient", "scopes": ["patient/*.rs"], "patient": "p1"})

with_changes(base, changes) := object.union(base, changes)

holds(answer, name) if {
	some one in answer.rules
	one.rule == name
	one.holds
}

test_a_physician_reads if {
	decision.allow with input as physician
}

test_a_scope_is_needed if {
	answer := decision.answer with input as with_changes(physician, {"scopes": ["user/Patient.rs"]})
	answer.allow == false
	not holds(answer, "scope")
}

test_a_permission_is_needed_whatever_the_scope if {
	answer := decision.answer with input as with_changes(physician, {"withdrawn": ["read-identified"]})
	answer.allow == false
	holds(answer, "scope")
	not holds(answer, "permission")
}

test_an_engineer_reads_no_observation_with_any_scope if {
	answer := decision.answer with input as with_changes(physician, {
		"role": "engineer",
		"scopes": ["user/*.cruds"],
		"granted": ["read-identified"],
	})
	answer.allow == false
	not holds(answer, "permission")
}

test_a_researcher_reads_no_patient if {
	not decision.allow with input as with_changes(physician, {"role": "researcher", "type": "Patient"})
}

test_a_patient_reads_the_own_record if {
	decision.allow with input as ill
}

test_a_patient_reads_nobody_elses if {
	answer := decision.answer with input as with_changes(ill, {"subject": "p2"})
	answer.allow == false
	not holds(answer, "compartment")
}

test_a_patient_has_no_user_scope if {
	answer := decision.answer with input as with_changes(ill, {"scopes": ["user/*.rs"]})
	answer.allow == false
	not holds(answer, "permission")
}

test_a_patient_scope_without_a_patient_reaches_nothing if {
	not decision.allow with input as with_changes(ill, {"patient": null})
}

test_what_no_clinician_verified_is_hidden_from_patients_only if {
	not decision.allow with input as with_changes(ill, {"verified": false})
	decision.allow with input as with_changes(physician, {"verified": false})
}

test_a_consent_that_denies_refuses if {
	not decision.allow with input as with_changes(physician, {"consent": "deny"})
}

test_a_physician_reads_the_own_institutions_patients if {
	decision.allow with input as divided
}

test_another_institutions_patient_is_refused if {
	answer := decision.answer with input as with_changes(divided, {"managed_by": "b"})
	answer.allow == false
	not holds(answer, "institution")
	holds(answer, "compartment")
}

test_a_patient_whom_nobody_manages_is_refused if {
	not decision.allow with input as with_changes(divided, {"managed_by": null})
}

test_who_has_no_institution_is_refused if {
	not decision.allow with input as with_changes(divided, {"institution": null})
	not decision.allow with input as with_changes(divided, {"institution": null, "managed_by": null})
}

test_shared_institutions_divide_nothing if {
	decision.allow with input as with_changes(divided, {"institutions": "shared", "managed_by": "b"})
}

test_a_setting_that_is_not_known_divides if {
	not decision.allow with input as with_changes(divided, {"institutions": "both", "managed_by": "b"})
}

test_who_manages_institutions_is_not_bounded if {
	answer := decision.answer with input as with_changes(divided, {
		"role": "system-administrator",
		"type": "AuditEvent",
		"scopes": ["user/AuditEvent.r"],
		"managed_by": "b",
	})
	holds(answer, "institution")
	withdrawn := decision.answer with input as with_changes(divided, {
		"role": "system-administrator",
		"withdrawn": ["manage-institutions"],
		"managed_by": "b",
	})
	not holds(withdrawn, "institution")
}

test_the_own_record_is_of_no_institution if {
	own := {"role": "patient", "scopes": ["patient/*.rs"], "patient": "p1", "institution": null, "managed_by": "b"}
	decision.allow with input as with_changes(divided, own)
	launched := {"scopes": ["patient/*.rs"], "patient": "p1", "managed_by": "b"}
	not decision.allow with input as with_changes(divided, launched)
}

test_break_glass_opens_its_patients_record_alone if {
	decision.allow with input as with_changes(divided, {"managed_by": "b", "break_glass": "p1"})
	not decision.allow with input as with_changes(divided, {"managed_by": "b", "break_glass": "p2"})
}

test_an_unknown_role_may_nothing if {
	answer := decision.answer with input as with_changes(physician, {"role": "boss"})
	answer.allow == false
	not holds(answer, "role")
}

test_nothing_asked_is_refused if {
	not decision.allow with input as {}
}

test_a_wildcard_leaves_out_the_audit_trail if {
	audit := with_changes(physician, {"type": "AuditEvent"})
	not decision.allow with input as audit
	not decision.allow with input as with_changes(audit, {"scopes": ["user/AuditEvent.rs"]})
	auditor := with_changes(audit, {"role": "system-administrator", "scopes": ["user/AuditEvent.rs"]})
	decision.allow with input as auditor
}
