package foramen.permissions_test

import data.foramen.permissions

subject(role, granted, withdrawn) := {"role": role, "granted": granted, "lent": [], "withdrawn": withdrawn}

test_every_role_has_known_permissions_only if {
	every role, names in permissions.roles {
		every name in names {
			permissions.permissions[name]
		}
	}
}

test_what_may_be_granted_is_known if {
	every role, names in permissions.grantable {
		every name in names {
			permissions.permissions[name]
		}
	}
}

test_every_role_says_what_may_be_granted if {
	every role, names in permissions.roles {
		is_set(permissions.grantable[role])
	}
}

test_identified_data_are_out_of_reach_of_all_who_do_not_treat if {
	every role in ["researcher", "engineer", "system-administrator", "institution-administrator", "service"] {
		within := permissions.reachable with input as subject(role, [], [])
		every name in within {
			permissions.permissions[name].identified == false
		}
	}
}

test_a_grant_adds if {
	"annotate" in permissions.effective with input as subject("physician", ["annotate"], [])
}

test_without_a_grant_it_is_not_there if {
	not "annotate" in permissions.effective with input as subject("physician", [], [])
}

test_a_withdrawal_beats_role_and_grant if {
	not "annotate" in permissions.effective with input as subject("physician", ["annotate"], ["annotate"])
	not "verify-ai" in permissions.effective with input as subject("physician", [], ["verify-ai"])
}

test_a_withdrawal_beats_what_is_lent if {
	lent := {"role": "physician", "granted": [], "lent": ["annotate"], "withdrawn": ["annotate"]}
	not "annotate" in permissions.effective with input as lent
}

test_a_grant_out_of_reach_gives_nothing if {
	permissions.effective == {"operate-devices", "read-definitions", "try-launches"} with input as subject("engineer", ["read-identified"], [])
}

test_an_unknown_role_has_nothing if {
	count(permissions.effective) == 0 with input as subject("no-such-role", ["annotate"], [])
}

test_rights_of_a_patient if {
	answer := permissions.rights with input as subject("patient", [], [])
	answer == {
		"permissions": ["read-own-record"],
		"scopes": ["patient/*.rs", "patient/AuditEvent.rs"],
		"reachable": ["read-own-record"],
	}
}

test_rights_of_a_service_are_empty if {
	answer := permissions.rights with input as subject("service", ["read-identified"], [])
	answer == {"permissions": [], "scopes": [], "reachable": []}
}

test_an_incomplete_question_gives_nothing if {
	count(permissions.effective) == 0 with input as {"role": "physician", "granted": [], "lent": []}
}

test_an_assistant_has_nothing_until_it_is_lent if {
	count(permissions.effective) == 0 with input as subject("assistant", [], [])
	lent := {"role": "assistant", "granted": [], "lent": ["plan-care", "verify-ai"], "withdrawn": []}
	permissions.effective == {"plan-care"} with input as lent
}

test_what_may_be_lent_is_known_and_the_physicians if {
	every name in permissions.lendable {
		name in permissions.reachable with input as subject("physician", [], [])
	}
}

test_integrators_try_launches_and_a_physician_by_name_only if {
	every role in ["engineer", "system-administrator"] {
		"try-launches" in permissions.effective with input as subject(role, [], [])
	}
	not "try-launches" in permissions.effective with input as subject("physician", [], [])
	"try-launches" in permissions.effective with input as subject("physician", ["try-launches"], [])
}

test_trying_launches_is_out_of_reach_of_everybody_else if {
	every role in ["researcher", "institution-administrator", "assistant", "patient", "service"] {
		not "try-launches" in permissions.effective with input as subject(role, ["try-launches"], [])
	}
}

test_trying_launches_opens_no_data if {
	permissions.permissions["try-launches"].scopes == []
	not "try-launches" in permissions.lendable
}
