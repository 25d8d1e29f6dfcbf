# May this account do this to this resource type? Every rule is named in the answer, with what decided it.
#
# input: role, granted, lent, withdrawn (names of permissions); scopes (those of the token, version 2 spelling);
# patient (launch context, or null); type, action (one of c r u d s); subject (the Patient asked about, or null);
# verified (false: made by a model and no clinician has verified it); consent ("permit", "deny", or null where no
# Consent is asked); institutions ("shared" or "separate"), institution (of the account, or null), managed_by (the
# institution that manages the Patient asked about, or null), break_glass (the Patient of emergency access, or null).
# The FHIR API applies the same rules as a condition inside each query.
package foramen.decision

import data.foramen.permissions

covers(scope, type, action) if {
	bare := split(scope, "?")
	halves := split(bare[0], ".")
	named := split(halves[0], "/")
	reaches(named[0], named[1], type)
	contains(halves[1], action)
}

reaches(_, named, type) if named == type

# The audit trail tells what others did: among people it is for whom a scope names it, and patients in their own record.
reaches(context, named, type) if {
	named == "*"
	not leaves_out(context, type)
}

reaches(context, named, _) if {
	named == "*"
	context == "patient"
	input.role == "patient"
}

leaves_out(context, type) if {
	context != "system"
	type == "AuditEvent"
}

# Permissions are written for context `user/`; `patient/` reaches less.
within(scope, allowed) if {
	split(scope, "/")[0] == split(allowed, "/")[0]
}

within(scope, allowed) if {
	startswith(scope, "patient/")
	startswith(allowed, "user/")
}

covering contains scope if {
	some scope in input.scopes
	covers(scope, input.type, input.action)
}

permitting contains name if {
	some name in permissions.effective
	some allowed in permissions.permissions[name].scopes
	covers(allowed, input.type, input.action)
	some scope in covering
	within(scope, allowed)
}

whole_record if {
	some scope in covering
	not startswith(scope, "patient/")
}

default role_known := false

role_known if permissions.roles[input.role]

default compartment := false

compartment if whole_record

compartment if {
	count(covering) > 0
	input.patient != null
	input.subject == null
}

compartment if {
	count(covering) > 0
	input.patient != null
	input.subject == input.patient
}

# Where institutions divide the record, a patient's record is for the institution that manages the patient; without
# one on either side it is nobody's (docs/adr/0030).
default institution := false

institution if input.institutions == "shared"

institution if "manage-institutions" in permissions.effective

institution if input.role == "service"

# No record is named: those of other institutions are left out inside the query.
institution if input.subject == null

institution if {
	input.institution != null
	input.managed_by == input.institution
}

institution if {
	input.role == "patient"
	input.subject == input.patient
}

institution if {
	input.break_glass != null
	input.subject == input.break_glass
}

default released := true

released := false if {
	input.role == "patient"
	input.verified == false
}

default consented := true

consented := false if input.consent == "deny"

rules := [
	{"rule": "role", "holds": role_known, "by": []},
	{"rule": "scope", "holds": count(covering) > 0, "by": sort(covering)},
	{"rule": "permission", "holds": count(permitting) > 0, "by": sort(permitting)},
	{"rule": "compartment", "holds": compartment, "by": []},
	{"rule": "institution", "holds": institution, "by": []},
	{"rule": "release", "holds": released, "by": []},
	{"rule": "consent", "holds": consented, "by": []},
]

default allow := false

allow if {
	every one in rules {
		one.holds
	}
}

answer := {"allow": allow, "rules": rules}
