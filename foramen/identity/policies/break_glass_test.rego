package foramen.break_glass_test

import data.foramen.break_glass

start_question := {
	"role": "physician",
	"granted": ["break-glass"],
	"lent": [],
	"withdrawn": [],
	"session": {"age_s": 20, "two_factors": false, "second_factor": false},
	"patient": "p1",
	"reason": {"code": "emergency-treatment", "length": 40},
	"started": 0,
	"limit": 3,
	"in_force": false,
}

starts(changes) if break_glass.may_start with input as object.union(start_question, changes)

test_a_physician_with_the_permission_starts if starts({})

test_without_the_permission_nobody_starts if not starts({"granted": []})

test_a_withdrawn_permission_counts if not starts({"withdrawn": ["break-glass"]})

test_what_is_lent_does_not_start if not starts({"granted": [], "lent": ["break-glass"]})

test_who_uses_anything_lent_does_not_start if not starts({"lent": ["plan-care"]})

test_no_other_role_starts if {
	every role in ["researcher", "engineer", "assistant", "patient", "service", "system-administrator", "nobody"] {
		not starts({"role": role})
	}
}

# Whatever else were changed: these two stay out.
test_patients_and_services_are_kept_out_twice if {
	every role in ["patient", "service"] {
		not break_glass.treats with input as object.union(start_question, {"role": role})
	}
	break_glass.treats with input as start_question
}

test_a_sign_in_of_long_ago_does_not_start if not starts({"session": {"age_s": 301}})

test_a_sign_in_to_come_does_not_start if not starts({"session": {"age_s": -1}})

test_an_unknown_sign_in_does_not_start if not starts({"session": {"age_s": null}})

test_who_has_a_second_factor_shows_it if {
	not starts({"session": {"second_factor": true}})
	starts({"session": {"second_factor": true, "two_factors": true}})
}

test_one_patient_is_named if {
	not starts({"patient": ""})
	not starts({"patient": null})
	not starts({"patient": ["p1", "p2"]})
}

test_the_reason_is_of_the_list if not starts({"reason": {"code": "curious"}})

test_the_reason_has_a_text if {
	not starts({"reason": {"length": 9}})
	starts({"reason": {"length": 10}})
	starts({"reason": {"length": 500}})
	not starts({"reason": {"length": 501}})
}

test_the_number_is_limited if {
	starts({"started": 2})
	not starts({"started": 3})
}

test_one_at_a_time if not starts({"in_force": true})

test_nothing_asked_starts_nothing if not break_glass.may_start with input as {}

carry_question := {
	"role": "physician",
	"granted": ["break-glass"],
	"lent": [],
	"withdrawn": [],
	"case": {"account": "surgeon", "session": "s1", "patient": "p1", "running": true},
	"token": {"account": "surgeon", "session": "s1", "patient": null},
}

carries(changes) if break_glass.may_carry with input as object.union(carry_question, changes)

test_a_token_of_the_session_carries_it if {
	carries({})
	carries({"token": {"patient": "p1"}})
}

test_an_app_opened_for_another_patient_does_not if not carries({"token": {"patient": "p2"}})

test_another_account_does_not if not carries({"token": {"account": "other"}})

test_another_session_does_not if not carries({"token": {"session": "s2"}})

test_a_token_without_a_session_does_not if {
	not carries({"token": {"session": null}})
	not carries({"token": {"session": null}, "case": {"session": null}})
}

test_nothing_is_carried_after_the_end if not carries({"case": {"running": false}})

test_nothing_is_carried_without_the_permission if {
	not carries({"granted": []})
	not carries({"withdrawn": ["break-glass"]})
	not carries({"granted": [], "lent": ["break-glass"]})
}

test_patients_and_services_carry_nothing if {
	not carries({"role": "patient"})
	not carries({"role": "service"})
}

test_nothing_asked_is_not_carried if not break_glass.may_carry with input as {}

review_question := {
	"role": "institution-administrator",
	"granted": [],
	"lent": [],
	"withdrawn": [],
	"name": "head",
	"institution": "north",
	"institutions": "shared",
	"case": {"account": "surgeon", "institution": "north", "arranged_by": ["root"], "managed_by": null},
}

reviews(changes) if break_glass.may_review with input as object.union(review_question, changes)

test_an_administrator_reviews_the_own_institution if {
	reviews({})
	not reviews({"case": {"institution": "south"}})
	not reviews({"case": {"institution": null}})
	not reviews({"case": {"institution": null}, "institution": null})
}

test_a_system_administrator_reviews_everywhere if {
	reviews({"role": "system-administrator", "case": {"institution": "south"}, "institution": null})
}

test_nobody_reviews_the_own if not reviews({"name": "surgeon"})

test_nobody_reviews_what_they_arranged if {
	not reviews({"case": {"arranged_by": ["head"]}})
	not reviews({"case": {"arranged_by": ["root", "head"]}})
	not reviews({"case": {"arranged_by": null}})
	not reviews({"role": "system-administrator", "case": {"arranged_by": ["head"]}})
	reviews({"case": {"arranged_by": []}})
}

test_where_institutions_divide_the_record_another_ones_patient_is_for_reviewers_everywhere if {
	reviews({"institutions": "separate", "case": {"managed_by": "north"}})
	not reviews({"institutions": "separate", "case": {"managed_by": "south"}})
	not reviews({"institutions": "separate", "case": {"managed_by": null}})
	not reviews({"institutions": "separate", "case": {"managed_by": null}, "institution": null})
	not reviews({"institutions": "odd"})
	reviews({"institutions": "separate", "case": {"managed_by": "south"}, "role": "system-administrator"})
}

test_no_other_role_reviews if {
	every role in ["physician", "researcher", "engineer", "assistant", "patient", "service"] {
		not reviews({"role": role})
	}
}

test_reviewing_can_be_withdrawn_and_is_not_lent if {
	not reviews({"withdrawn": ["review-break-glass"]})
	not reviews({"role": "physician", "lent": ["review-break-glass"]})
}

test_nothing_asked_is_not_reviewed if not break_glass.may_review with input as {}
