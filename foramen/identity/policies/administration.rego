# May an administrator do this to that account or institution?
#
# input: role, granted, lent, withdrawn, institution, name (of the administrator); needs (the permission asked for);
# target: name, role, institution of the account acted on, granted (single permissions it has), permission (being granted
# or withdrawn, or null), links (for each person it would newly stand for: the institutions that person belongs to, as
# the record says).
package foramen.administration

import data.foramen.permissions

everywhere if "manage-institutions" in permissions.effective

default permitted := false

permitted if input.needs in permissions.effective

# An institution administrator acts inside the own institution only; without an institution, nowhere.
default own_institution := false

own_institution if everywhere

own_institution if {
	input.institution != null
	input.target.institution == input.institution
}

# Permissions that say something about others' rights or about what they did.
administrative := {
	"manage-accounts",
	"manage-institutions",
	"manage-clients",
	"grant-permissions",
	"review-break-glass",
	"read-audit",
	"maintain-record",
}

# What the target can have to say, whatever is withdrawn from it just now: a withdrawal ends, and who acts on an account
# (a password link, a second factor) may have it in hand then.
target_says contains name if {
	some name in permissions.roles[input.target.role]
	name in administrative
}

target_says contains name if {
	some name in input.target.granted
	name in administrative
}

# Nobody makes or changes an account that has more to say than the own one: not by its role, and not by a permission that
# the administrator has lost, which would come back through a second account.
default rank := false

rank if {
	outranks
	is_array(input.target.granted)
	every name in target_says {
		name in permissions.effective
	}
}

default outranks := false

outranks if everywhere

outranks if not input.target.role in {"system-administrator", "service"}

# Who an account stands for decides whose record it opens: inside the own institution only, and only as the record says.
default link := false

link if {
	is_array(input.target.links)
	everywhere
}

link if {
	is_array(input.target.links)
	every institutions in input.target.links {
		is_string(input.institution)
		input.institution in institutions
	}
}

# Nobody decides on their own rights.
default another := false

another if input.target.name != input.name

default within_reach := false

within_reach if input.target.permission == null

within_reach if input.target.permission in permissions.roles[input.target.role]

within_reach if input.target.permission in permissions.grantable[input.target.role]

rules := [
	{"rule": "permission", "holds": permitted},
	{"rule": "institution", "holds": own_institution},
	{"rule": "rank", "holds": rank},
	{"rule": "link", "holds": link},
	{"rule": "another", "holds": another},
	{"rule": "reach", "holds": within_reach},
]

default allow := false

allow if {
	every one in rules {
		one.holds
	}
}

answer := {"allow": allow, "rules": rules}
