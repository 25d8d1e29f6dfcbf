"""The words of emergency access, Chinese and English; `text` adds them to its own."""

from __future__ import annotations

BREAK_GLASS_WORDS: dict[str, dict[str, str]] = {
    "zh": {
        "btg_title": "紧急访问",
        "btg_lead": "仅在紧急情况下使用：在限定时间内查看一位患者的病历，"
        "其中平时因患者意愿或机构限制而对您隐藏的内容也可查看。",
        "btg_recorded": "您的每一次访问都会被记录，并由管理员复核。启动时会立即发出警报。",
        "btg_lasts": "持续",
        "btg_minutes": "分钟",
        "btg_patient": "患者",
        "btg_patient_id": "患者编号（病历系统中的 ID）",
        "btg_patient_hint": "看不到的患者不会出现在列表中；请直接输入其编号。系统不会告知该编号是否存在。",
        "btg_by_id": "使用下面输入的编号",
        "btg_list_unavailable": "暂时无法读取患者列表；请直接输入患者编号。",
        "btg_reason": "原因",
        "btg_text": "具体说明（10 至 500 字）",
        "btg_text_hint": "复核人员会看到这段文字。请勿写姓名、证件号或电话。",
        "btg_start": "启动紧急访问",
        "btg_problem_permission": "您的账号没有紧急访问权限。管理员可以为指定的医生授予此权限。",
        "btg_problem_factors": "请用两个因素登录：此账号已设置第二步验证。",
        "btg_problem_patient": "请指明一位患者：从列表中选择，或输入一个编号（不能两者不同）。",
        "btg_problem_reason": "请选择原因，并写明具体情况（10 至 500 字）。",
        "btg_problem_none-in-force": "您已有一次正在进行的紧急访问。请先结束它。",
        "btg_problem_limit": "24 小时内的紧急访问次数已达上限。请联系管理员。",
        "btg_problem_used": "此表单已提交过。如仍需要，请重新填写。",
        "btg_problem_gone": "没有这样的紧急访问。",
        "btg_in_force": "紧急访问正在进行",
        "btg_until": "有效至",
        "btg_next": "请在应用中重新加载，或重新打开应用：新的访问令牌会带有紧急访问权限。其他患者不受影响。",
        "btg_other_session": "它是在另一次登录中启动的，只对那次登录有效。",
        "btg_end": "立即结束",
        "btg_ended": "紧急访问已结束，带有它的访问令牌已作废。",
        "btg_link": "紧急访问（打破玻璃）",
        "btg_link_hint": "紧急情况下查看平时对您隐藏的病历；每次访问都会被记录并复核。",
    },
    "en": {
        "btg_title": "Emergency access",
        "btg_lead": "For emergencies only: for a limited time you can read one patient's record, including what the "
        "patient's wishes or the walls between institutions otherwise hide from you.",
        "btg_recorded": "Every access will be recorded and reviewed by an administrator. An alert goes out at once.",
        "btg_lasts": "lasts",
        "btg_minutes": "minutes",
        "btg_patient": "Patient",
        "btg_patient_id": "Patient number (id in the record)",
        "btg_patient_hint": "A patient you may not see is not in the list: type the number. You are not told whether "
        "there is such a patient.",
        "btg_by_id": "Use the number typed below",
        "btg_list_unavailable": "The list of patients cannot be read for the moment; type the patient number.",
        "btg_reason": "Reason",
        "btg_text": "What happened (10 to 500 characters)",
        "btg_text_hint": "Reviewers will read this. Write no name, identity number or telephone number.",
        "btg_start": "Start emergency access",
        "btg_problem_permission": "Your account has no permission for emergency access. An administrator may grant it "
        "to a named physician.",
        "btg_problem_factors": "Sign in with two factors: this account has a second one.",
        "btg_problem_patient": "Name one patient: choose from the list, or type a number; not two that differ.",
        "btg_problem_reason": "Choose a reason and say what happened (10 to 500 characters).",
        "btg_problem_none-in-force": "You have emergency access already. End that first.",
        "btg_problem_limit": "You have used emergency access as often as it is possible in 24 hours. "
        "Ask an administrator.",
        "btg_problem_used": "This form was sent already. Fill it in again if it is needed once more.",
        "btg_problem_gone": "There is no such emergency access.",
        "btg_in_force": "Emergency access is in force",
        "btg_until": "Until",
        "btg_next": "Reload the app, or open it again: new access tokens carry the emergency access. "
        "Other patients are not affected.",
        "btg_other_session": "It was started in another sign-in and counts there only.",
        "btg_end": "End it now",
        "btg_ended": "Emergency access has ended; the access tokens that carried it are revoked.",
        "btg_link": "Emergency access (break the glass)",
        "btg_link_hint": "Read in an emergency what is otherwise hidden from you; "
        "every access is recorded and reviewed.",
    },
}
