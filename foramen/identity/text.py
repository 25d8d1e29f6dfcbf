"""The words of the sign-in pages, Chinese and English, and of every scope in plain language.

Chinese comes first, as the first users are; the pages switch with `?lang=`.
"""

from __future__ import annotations

from foramen.identity.account_text import ACCOUNT_ERRORS, ACCOUNT_WORDS
from foramen.identity.federation.text import FEDERATION_WORDS
from foramen.identity.oauth.consent_text import CONSENT_WORDS, explain_query
from foramen.identity.rights.break_glass_text import BREAK_GLASS_WORDS
from foramen.kernel.access_context import Scope, parse_scope

LANGUAGES = ("zh", "en")

WORDS: dict[str, dict[str, str]] = {
    "zh": {
        "html_lang": "zh-CN",
        "other_language": "English",
        "tagline": "腰椎间盘突出手术智能决策支持",
        "disclaimer": "本软件不是注册医疗器械",
        "sign_in": "登录",
        "sign_in_for": "登录以继续使用",
        "username": "用户名",
        "password": "密码",
        "sign_in_failed": "用户名或密码不正确，或该账号因多次失败已被暂时锁定。",
        "consent_title": "授权访问",
        "consent_external": "这不是 Foramen 自带的应用。请仅在您信任它时同意。",
        "consent_return": "同意后将返回",
        "allow": "同意",
        "deny": "拒绝",
        "signed_in_as": "当前用户",
        "picker_title": "选择患者",
        "picker_lead": "需要知道您要为哪位患者使用：",
        "search": "查找",
        "search_by_name": "按姓名查找",
        "choose": "选择",
        "no_patients": "没有找到患者。",
        "unnamed": "（未登记姓名）",
        "born": "出生",
        "sign_out": "退出登录",
        "set_password_title": "设置密码",
        "set_password_lead": "为以下账号设置密码：",
        "set_password_hint": "至少 12 个字符，不要求字符种类；不能是常见、已泄露或与您有关的密码。可以使用一句话。",
        "sign_out_question": "确定要退出 Foramen 吗？由此次登录打开的应用也会一并退出。",
        "signed_out": "您已退出登录。",
        "back_to_portal": "返回工作台",
        "error_title": "无法继续",
        "error_hint": "请关闭此页面，并从应用重新开始。",
    },
    "en": {
        "html_lang": "en",
        "other_language": "中文",
        "tagline": "Decision support for lumbar disc herniation surgery",
        "disclaimer": "Not a registered medical device",
        "sign_in": "Sign in",
        "sign_in_for": "Sign in to continue to",
        "username": "User name",
        "password": "Password",
        "sign_in_failed": "User name or password is wrong, or the account is locked for a while after failures.",
        "consent_title": "Allow access",
        "consent_external": "This app is not part of Foramen. Agree only if you trust it.",
        "consent_return": "You will then return to",
        "allow": "Allow",
        "deny": "Deny",
        "signed_in_as": "Signed in as",
        "picker_title": "Choose a patient",
        "picker_lead": "needs to know which patient you will use it for:",
        "search": "Search",
        "search_by_name": "Search by name",
        "choose": "Choose",
        "no_patients": "No patient was found.",
        "unnamed": "(no name recorded)",
        "born": "born",
        "sign_out": "Sign out",
        "set_password_title": "Set the password",
        "set_password_lead": "For the account",
        "set_password_hint": "At least 12 characters of any kind; not a common or leaked one and nothing about you. A "
        "sentence is fine.",
        "sign_out_question": "Sign out of Foramen? Apps opened with this sign-in end with it.",
        "signed_out": "You are signed out.",
        "back_to_portal": "Back to the portal",
        "error_title": "This cannot continue",
        "error_hint": "Close this page and start again from the app.",
    },
}

ERRORS: dict[str, dict[str, str]] = {
    "zh": {
        "invalid_request": "应用发送的请求不正确。",
        "unknown_client": "未知的应用，或返回地址未登记。",
        "client_not_approved": "该应用已申请登记，但管理员尚未批准。",
        "expired": "此次登录请求已过期。",
        "password_link": "此链接已失效或已使用。请向管理员索取新的链接。",
        "csrf": "表单已过期，或不是从本页面提交的。请返回重试。",
        "unavailable": "服务暂时不可用，请稍后再试。",
        "internal": "服务出现意外错误。",
        "patients_unavailable": "暂时无法读取患者列表，请稍后再试。",
    },
    "en": {
        "invalid_request": "The app sent a request that is not correct.",
        "unknown_client": "The app is unknown, or its return address is not registered.",
        "client_not_approved": "The app has applied for registration; an administrator has not approved it yet.",
        "expired": "This sign-in request has expired.",
        "password_link": "This link has run out or was used. Ask your administrator for a new one.",
        "csrf": "The form has expired or was not sent from this page. Go back and try again.",
        "unavailable": "The service is not available for the moment. Please try again shortly.",
        "internal": "An unexpected error occurred.",
        "patients_unavailable": "The list of patients cannot be read for the moment. Please try again shortly.",
    },
}

for _language in LANGUAGES:
    WORDS[_language] |= ACCOUNT_WORDS[_language]
    WORDS[_language] |= CONSENT_WORDS[_language]
    WORDS[_language] |= FEDERATION_WORDS[_language]
    WORDS[_language] |= BREAK_GLASS_WORDS[_language]
    ERRORS[_language] |= ACCOUNT_ERRORS[_language]

_PLAIN_SCOPES = {
    "zh": {
        "openid": "知道您是谁",
        "fhirUser": "知道您在病历系统中的身份",
        "profile": "读取您的用户名",
        "launch": "接收当前打开的患者",
        "launch/patient": "请您选择一位患者",
        "launch/encounter": "请您选择一次就诊",
        "foramen/admin": "管理本系统（系统管理员权限）",
        "offline_access": "在您离开后继续保持访问，直至撤销",
        "online_access": "在您登录期间保持访问",
    },
    "en": {
        "openid": "know who you are",
        "fhirUser": "know who you are in the health record",
        "profile": "read your user name",
        "launch": "receive the patient that is open now",
        "launch/patient": "ask you to choose a patient",
        "launch/encounter": "ask you to choose an encounter",
        "foramen/admin": "administer this installation (rights of a system administrator)",
        "offline_access": "keep access after you have left, until it is revoked",
        "online_access": "keep access while you are signed in",
    },
}
_ACTIONS = {
    "zh": {"r": "读取", "s": "查找", "c": "新建", "u": "修改", "d": "删除"},
    "en": {"r": "read", "s": "search", "c": "create", "u": "change", "d": "delete"},
}
_TYPES = {
    "zh": {
        "*": "全部病历资料",
        "Patient": "患者基本信息",
        "Observation": "检查与检验结果",
        "DiagnosticReport": "诊断报告",
        "ImagingStudy": "影像检查",
        "CarePlan": "诊疗计划",
        "Condition": "诊断与问题",
        "Procedure": "手术与操作",
        "QuestionnaireResponse": "问卷与量表",
        "Provenance": "签名与来源记录",
        "Task": "任务",
        "MedicationRequest": "用药医嘱",
        "AllergyIntolerance": "过敏史",
        "AuditEvent": "审计记录",
    },
    "en": {
        "*": "the whole record",
        "Patient": "personal details",
        "Observation": "observations and results",
        "DiagnosticReport": "diagnostic reports",
        "ImagingStudy": "imaging studies",
        "CarePlan": "care plans",
        "Condition": "diagnoses and problems",
        "Procedure": "procedures",
        "QuestionnaireResponse": "questionnaires and scores",
        "Provenance": "signatures and origin",
        "Task": "tasks",
        "MedicationRequest": "prescriptions",
        "AllergyIntolerance": "allergies",
        "AuditEvent": "audit records",
    },
}
_REACH = {
    "zh": {"patient": "所选患者的", "user": "您有权查看的所有患者的", "system": "系统中的"},
    "en": {"patient": "of the chosen patient", "user": "of every patient you may see", "system": "in the system"},
}
_OF_NOBODY = {
    "zh": {
        "CodeSystem": "代码系统",
        "ConceptMap": "代码对照",
        "Device": "设备与模型",
        "Endpoint": "接入点",
        "Library": "知识库",
        "Location": "地点",
        "Organization": "机构",
        "Practitioner": "医务人员",
        "PractitionerRole": "医务人员岗位",
        "StructureDefinition": "结构定义",
        "ValueSet": "值集",
    },
    "en": {
        "CodeSystem": "code systems",
        "ConceptMap": "concept maps",
        "Device": "devices and models",
        "Endpoint": "endpoints",
        "Library": "libraries",
        "Location": "places",
        "Organization": "institutions",
        "Practitioner": "staff",
        "PractitionerRole": "positions of staff",
        "StructureDefinition": "structure definitions",
        "ValueSet": "value sets",
    },
}
"""Types that are about no patient: whose they are is not said."""


def explain_scope(scope: str, language: str) -> str:
    """Say in plain words what a granted scope allows."""
    parsed = parse_scope(scope)
    if parsed is None:
        return _PLAIN_SCOPES[language].get(scope, scope)
    return _explain_resource_scope(parsed, language)


def _explain_resource_scope(scope: Scope, language: str) -> str:
    actions = [word for action, word in _ACTIONS[language].items() if action in scope.actions]
    common = _OF_NOBODY[language].get(scope.resource_type)
    kind = common or _TYPES[language].get(scope.resource_type, scope.resource_type)
    reach = "" if common else _REACH[language][scope.context]
    if language == "zh":
        return f"{'、'.join(actions)}{reach}{kind}{explain_query(scope.query, language)}"
    listed = actions[0] if len(actions) == 1 else f"{', '.join(actions[:-1])} and {actions[-1]}"
    return f"{listed} {kind}{reach and ' ' + reach}{explain_query(scope.query, language)}"
