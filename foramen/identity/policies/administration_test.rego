package foramen.administration_test

import data.foramen.administration

target := {
	"name": "surgeon",
	"role": "physician",
	"institution": "north",
	"permission": null,
	"granted": [],
	"links": [],
}

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

without_granted := object.remove(target, ["granted"])

without_links := object.remove(target, ["links"])

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

test_an_administrator_of_the_same_role_is_acted_on if {
	administration.allow with input as aims(local, {"role": "institution-administrator"})
	administration.allow with input as aims(system, {"role": "system-administrator"})
}

# What was withdrawn does not come back through a second account.
test_nobody_has_more_to_say_than_who_acts_on_them if {
	every lost in ["review-break-glass", "grant-permissions"] {
		less := object.union(local, {"withdrawn": [lost]})
		not administration.allow with input as aims(less, {"role": "institution-administrator"})
		administration.allow with input as aims(less, {"role": "physician"})
	}
	less := object.union(system, {"withdrawn": ["read-audit"]})
	not administration.allow with input as aims(less, {"role": "system-administrator"})
	administration.allow with input as aims(less, {"role": "institution-administrator"})
}

test_single_permissions_count_as_well if {
	not administration.allow with input as aims(local, {"granted": ["read-audit"]})
	administration.allow with input as aims(local, {"granted": ["annotate"]})
}

test_unknown_single_permissions_are_refused if {
	not administration.allow with input as object.union(object.remove(local, ["target"]), {"target": without_granted})
}

test_a_person_of_the_own_institution_is_linked if {
	administration.allow with input as aims(local, {"links": [["north"], ["south", "north"]]})
}

test_another_institutions_person_is_not if {
	not administration.allow with input as aims(local, {"links": [["south"]]})
	not administration.allow with input as aims(local, {"links": [["north"], ["south"]]})
	not administration.allow with input as aims(local, {"links": [[]]})
	administration.allow with input as aims(system, {"links": [["south"], []]})
}

test_unknown_links_are_refused if {
	not administration.allow with input as object.union(object.remove(local, ["target"]), {"target": without_links})
	not administration.allow with input as aims(local, {"links": null})
	not administration.allow with input as aims(system, {"links": null})
}
