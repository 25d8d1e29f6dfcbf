"""The words of the consent page and of the encounter picker, and queries of granular scopes in plain language."""

from __future__ import annotations

from foramen.kernel import scope_query

CONSENT_WORDS: dict[str, dict[str, str]] = {
    "zh": {
        "consent_lead": "申请代表您访问以下内容。您可以取消勾选任何一项。",
        "consent_patient": "涉及的患者",
        "consent_also": "此外涉及",
        "consent_every_patient": "您有权查看的所有患者",
        "encounter_planned": "已计划",
        "encounter_arrived": "已到达",
        "encounter_triaged": "已分诊",
        "encounter_in-progress": "进行中",
        "encounter_onleave": "暂离",
        "encounter_finished": "已完成",
        "encounter_cancelled": "已取消",
        "group_read": "查看",
        "group_write": "新建、修改或删除",
        "group_identity": "您的身份",
        "group_stay": "保持访问",
        "consent_context": "打开应用时，它还会：",
        "consent_remembered": "您的选择会被记住，直到该应用申请更多权限。您可以随时在“我的账号”中撤回。",
        "allow_read_only": "仅同意查看",
        "allow_chosen": "同意所选",
        "encounter_title": "选择就诊",
        "encounter_lead": "需要知道您要为哪次就诊使用：",
        "no_encounters": "没有找到该患者的就诊记录。",
        "without_encounter": "不选择就诊，继续",
    },
    "en": {
        "consent_lead": "asks to do the following on your behalf. You may uncheck anything.",
        "consent_patient": "Patient concerned",
        "consent_also": "Also concerned",
        "consent_every_patient": "every patient you may see",
        "encounter_planned": "planned",
        "encounter_arrived": "arrived",
        "encounter_triaged": "triaged",
        "encounter_in-progress": "in progress",
        "encounter_onleave": "on leave",
        "encounter_finished": "finished",
        "encounter_cancelled": "cancelled",
        "group_read": "Look at",
        "group_write": "Create, change or delete",
        "group_identity": "Who you are",
        "group_stay": "Stay connected",
        "consent_context": "When opened, the app will also",
        "consent_remembered": "Your choice is remembered until the app asks for more. Withdraw it in “My account”.",
        "allow_read_only": "Allow looking only",
        "allow_chosen": "Allow what is checked",
        "encounter_title": "Choose an encounter",
        "encounter_lead": "needs to know which encounter you will use it for:",
        "no_encounters": "No encounter of this patient was found.",
        "without_encounter": "Continue without an encounter",
    },
}
_NAMES = {
    "zh": {"category": "类别", "code": "项目", "status": "状态", "date": "日期", "_id": "编号", "type": "类型"},
    "en": {"_id": "id"},
}
_VALUES = {
    "laboratory": "检验",
    "vital-signs": "生命体征",
    "imaging": "影像",
    "survey": "量表",
    "exam": "体格检查",
    "social-history": "生活史",
    "procedure": "操作",
    "therapy": "治疗",
    "activity": "活动",
    "final": "已确认",
    "active": "进行中",
}


def explain_query(query: str, language: str) -> str:
    """Say in plain words what the query of a granular scope selects; empty for none."""
    told = [_explain(name, value, language) for name, value in scope_query.pairs_of(query)]
    if not told:
        return ""
    return f"（仅限{'，且'.join(told)}）" if language == "zh" else f" (only where {' and '.join(told)})"


def _explain(name: str, value: str, language: str) -> str:
    code, _, modifier = name.partition(":")
    words = [part.rpartition("|")[2] or part for part in value.split(",")]
    if language == "zh":
        listed = "或".join(_VALUES.get(word, word) for word in words)
        return f"{_NAMES['zh'].get(code, code)}{f'（{modifier}）' if modifier else ''}为{listed}"
    return f"{_NAMES['en'].get(code, code)}{f' ({modifier})' if modifier else ''} is {' or '.join(words)}"
