# May this account lend a permission to that one (账号借用)?
#
# input: permission; lender: name, institution, permissions (its own, none that is lent to it);
# borrower: name, institution, reachable (what its role can have).
package foramen.delegation

import data.foramen.permissions

default may_lend := false

may_lend if "delegate" in input.lender.permissions

default own := false

own if input.permission in input.lender.permissions

default lendable := false

lendable if input.permission in permissions.lendable

default within_reach := false

within_reach if input.permission in input.borrower.reachable

default another := false

another if input.lender.name != input.borrower.name

# Who belongs to no institution lends to nobody and borrows from nobody: two that are missing are not the same one.
default same_institution := false

same_institution if {
	is_string(input.lender.institution)
	input.lender.institution != ""
	input.lender.institution == input.borrower.institution
}

rules := [
	{"rule": "may-lend", "holds": may_lend},
	{"rule": "own", "holds": own},
	{"rule": "lendable", "holds": lendable},
	{"rule": "reach", "holds": within_reach},
	{"rule": "another", "holds": another},
	{"rule": "institution", "holds": same_institution},
]

default allow := false

allow if {
	every one in rules {
		one.holds
	}
}

answer := {"allow": allow, "rules": rules}
