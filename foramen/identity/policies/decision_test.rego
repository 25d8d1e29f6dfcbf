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
}

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

test_an_unknown_role_may_nothing if {
	answer := decision.answer with input as with_changes(physician, {"role": "boss"})
	answer.allow == false
	not holds(answer, "role")
}

test_nothing_asked_is_refused if {
	not decision.allow with input as {}
}
