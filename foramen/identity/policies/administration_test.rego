package foramen.administration_test

import data.foramen.administration

target := {"name": "surgeon", "role": "physician", "institution": "north", "permission": null}

local := {
	"name": "head",
	"role": "institution-administrator",
	"granted": [],
	"lent": [],
	"withdrawn": [],
	"institution": "north",
	"needs": "manage-accounts",
	"target": target,
}

system := object.union(local, {"name": "root", "role": "system-administrator", "institution": null})

aims(base, changes) := object.union(base, {"target": object.union(target, changes)})

test_an_institution_administrator_acts_on_the_own_institution if {
	administration.allow with input as local
}

test_and_on_no_other if {
	not administration.allow with input as aims(local, {"institution": "south"})
}

test_nor_on_accounts_without_one if {
	not administration.allow with input as aims(local, {"institution": null})
	not administration.allow with input as object.union(
		aims(local, {"institution": null}),
		{"institution": null},
	)
}

test_a_system_administrator_acts_everywhere if {
	administration.allow with input as system
	administration.allow with input as aims(system, {"institution": "south"})
}

test_nobody_is_raised_above if {
	not administration.allow with input as aims(local, {"role": "system-administrator"})
}

test_nobody_decides_on_the_own_account if {
	not administration.allow with input as aims(system, {"name": "root"})
}

test_a_physician_administers_nothing if {
	not administration.allow with input as object.union(local, {"role": "physician"})
}

test_what_the_role_cannot_have_is_not_granted if {
	grants := object.union(local, {"needs": "grant-permissions"})
	administration.allow with input as aims(grants, {"permission": "annotate"})
	not administration.allow with input as aims(grants, {"permission": "maintain-record"})
	not administration.allow with input as aims(grants, {"role": "engineer", "permission": "read-identified"})
}

test_a_withdrawn_permission_is_missing if {
	not administration.allow with input as object.union(local, {"withdrawn": ["manage-accounts"]})
}

test_nothing_asked_is_refused if {
	not administration.allow with input as {}
}
