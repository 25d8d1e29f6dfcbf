# May an administrator do this to that account or institution?
#
# input: role, granted, lent, withdrawn, institution, name (of the administrator); needs (the permission asked for);
# target: name, role, institution of the account acted on, permission (being granted or withdrawn, or null).
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

# Nobody makes or changes an account that has more to say than the own one.
default rank := false

rank if everywhere

rank if not input.target.role in {"system-administrator", "service"}

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
