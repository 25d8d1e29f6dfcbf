# Break-glass: may emergency access start, may a token carry it, may somebody review (or end) it?
#
# Every question has role, granted, lent, withdrawn of the account that asks. What is lent never counts here: `lent` is
# the empty list, and a question with anything in it is refused.
#
# start: session: age_s (seconds since the person proved who they are), two_factors, second_factor (whether the account
#   has one); patient (logical id); reason: code, length (letters); started (occasions in 24 hours), limit; in_force.
# carry: case: account, session, patient, running; token: account, session, patient (launch context, or null).
# review: name, institution (of who reviews); institutions (shared, or separate where they divide the record); case:
#   account, institution, arranged_by (who gave the account what it took), managed_by (of the patient, or null).
package foramen.break_glass

import data.foramen.permissions

reasons := {
	"emergency-treatment": {"place": 1, "zh": "急救治疗", "en": "Emergency treatment"},
	"unable-to-consent": {
		"place": 2,
		"zh": "患者昏迷或无法表达意愿",
		"en": "Patient unconscious or unable to consent",
	},
	"continuity-of-care": {
		"place": 3,
		"zh": "夜间或交接班时延续诊疗",
		"en": "Continuity of care at night or at a handover",
	},
	"public-health": {"place": 4, "zh": "公共卫生", "en": "Public health"},
	"other": {"place": 5, "zh": "其他", "en": "Other"},
}

recent_s := 300

shortest_reason := 10

longest_reason := 500

default nothing_lent := false

nothing_lent if input.lent == []

default permitted := false

permitted if {
	nothing_lent
	"break-glass" in permissions.effective
}

# Never a patient's account, never a service, whatever was granted.
default treats := false

treats if {
	permissions.roles[input.role]
	not input.role in {"patient", "service"}
}

default recent := false

recent if {
	is_number(input.session.age_s)
	input.session.age_s >= 0
	input.session.age_s <= recent_s
}

default factors := false

factors if input.session.two_factors == true

factors if input.session.second_factor == false

default one_patient := false

one_patient if {
	is_string(input.patient)
	input.patient != ""
}

default reasoned := false

reasoned if {
	reasons[input.reason.code]
	is_number(input.reason.length)
	input.reason.length >= shortest_reason
	input.reason.length <= longest_reason
}

default within_limit := false

within_limit if {
	is_number(input.started)
	is_number(input.limit)
	input.started < input.limit
}

default none_in_force := false

none_in_force if input.in_force == false

start_rules := [
	{"rule": "permission", "holds": permitted},
	{"rule": "treats", "holds": treats},
	{"rule": "recent", "holds": recent},
	{"rule": "factors", "holds": factors},
	{"rule": "patient", "holds": one_patient},
	{"rule": "reason", "holds": reasoned},
	{"rule": "none-in-force", "holds": none_in_force},
	{"rule": "limit", "holds": within_limit},
]

default may_start := false

may_start if {
	every one in start_rules {
		one.holds
	}
}

start := {"allow": may_start, "rules": start_rules}

default running := false

running if input.case.running == true

default own := false

own if {
	is_string(input.case.account)
	input.case.account == input.token.account
}

default same_session := false

same_session if {
	is_string(input.case.session)
	input.case.session == input.token.session
}

# An app that was opened for another patient has no need of it.
default same_patient := false

same_patient if input.token.patient == null

same_patient if {
	is_string(input.case.patient)
	input.token.patient == input.case.patient
}

carry_rules := [
	{"rule": "permission", "holds": permitted},
	{"rule": "treats", "holds": treats},
	{"rule": "running", "holds": running},
	{"rule": "account", "holds": own},
	{"rule": "session", "holds": same_session},
	{"rule": "patient", "holds": same_patient},
]

default may_carry := false

may_carry if {
	every one in carry_rules {
		one.holds
	}
}

carry := {"allow": may_carry, "rules": carry_rules}

default reviewer := false

reviewer if {
	nothing_lent
	"review-break-glass" in permissions.effective
}

default another := false

another if {
	is_string(input.case.account)
	is_string(input.name)
	input.case.account != input.name
}

default reached := false

reached if {
	nothing_lent
	"manage-institutions" in permissions.effective
}

reached if {
	is_string(input.institution)
	input.case.institution == input.institution
}

# Who made the account, gave it the permission or made its last password link judges what they have arranged themselves.
default arranged_by_others := false

arranged_by_others if {
	is_array(input.case.arranged_by)
	is_string(input.name)
	not input.name in input.case.arranged_by
}

# What another institution's patient had to bear is not judged by the institution that looked.
default own_patient := false

own_patient if input.institutions == "shared"

own_patient if {
	nothing_lent
	"manage-institutions" in permissions.effective
}

own_patient if {
	is_string(input.institution)
	input.case.managed_by == input.institution
}

review_rules := [
	{"rule": "permission", "holds": reviewer},
	{"rule": "institution", "holds": reached},
	{"rule": "another", "holds": another},
	{"rule": "arranged", "holds": arranged_by_others},
	{"rule": "patient", "holds": own_patient},
]

default may_review := false

may_review if {
	every one in review_rules {
		one.holds
	}
}

review := {"allow": may_review, "rules": review_rules}
