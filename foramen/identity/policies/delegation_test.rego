package foramen.delegation_test

import data.foramen.delegation

question := {
	"permission": "plan-care",
	"lender": {"name": "surgeon", "institution": "north", "permissions": ["delegate", "plan-care", "verify-ai"]},
	"borrower": {"name": "helper", "institution": "north", "reachable": ["plan-care", "annotate"]},
}

test_a_physician_lends_to_an_assistant if {
	delegation.allow with input as question
}

test_what_one_has_not_is_not_lent if {
	not delegation.allow with input as object.union(question, {"permission": "annotate"})
}

test_signing_is_not_lent if {
	reach := {"borrower": {"name": "helper", "institution": "north", "reachable": ["verify-ai"]}}
	not delegation.allow with input as object.union(object.union(question, reach), {"permission": "verify-ai"})
}

test_not_to_another_institution if {
	not delegation.allow with input as object.union(question, {"borrower": {"institution": "south"}})
}

test_not_to_oneself if {
	not delegation.allow with input as object.union(question, {"borrower": {"name": "surgeon"}})
}

test_not_beyond_what_the_role_can_have if {
	not delegation.allow with input as object.union(question, {"borrower": {"reachable": ["annotate"]}})
}

test_who_may_not_lend_does_not if {
	not delegation.allow with input as object.union(question, {"lender": {"permissions": ["plan-care"]}})
}

test_nothing_asked_is_refused if {
	not delegation.allow with input as {}
}

test_without_an_institution_nothing_is_lent if {
	parties := {"lender": {"institution": null}, "borrower": {"institution": null}}
	not delegation.allow with input as object.union(question, parties)
}

test_an_empty_institution_is_none if {
	parties := {"lender": {"institution": ""}, "borrower": {"institution": ""}}
	not delegation.allow with input as object.union(question, parties)
}
