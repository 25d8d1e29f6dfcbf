# Roles, their permissions, and the SMART scopes each permission allows at most.
#
# A permission is a word. Its scopes are written for context `user/`; `patient/` scopes are allowed for the same types
# and actions. A permission without scopes is asked by the administration service, not by the FHIR API.
# https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html
package foramen.permissions

permissions := {
	"read-identified": {
		"zh": "查看可识别身份的病历与影像",
		"en": "read identified records and images",
		"scopes": ["user/*.rs"],
		"identified": true,
	},
	"verify-ai": {
		"zh": "核对并签发 AI 结果",
		"en": "verify and finalise AI results",
		"scopes": ["user/Observation.u", "user/DiagnosticReport.u", "user/Provenance.c"],
		"identified": true,
	},
	"plan-care": {
		"zh": "制定并修改治疗方案",
		"en": "write care plans",
		"scopes": ["user/CarePlan.cu", "user/Provenance.c"],
		"identified": true,
	},
	"record-questionnaires": {
		"zh": "录入量表",
		"en": "record questionnaires",
		"scopes": ["user/QuestionnaireResponse.cru"],
		"identified": true,
	},
	"request-analysis": {
		"zh": "申请 AI 分析并跟踪任务",
		"en": "request AI analyses and follow their tasks",
		"scopes": ["user/Task.cru"],
		"identified": true,
	},
	"annotate": {
		"zh": "标注影像与结果",
		"en": "annotate images and results",
		"scopes": ["user/Observation.cu", "user/Provenance.c"],
		"identified": true,
	},
	"manage-images": {
		"zh": "存入、移除与恢复影像，维护标签",
		"en": "store, reject and restore images, and keep their labels",
		"scopes": ["user/ImagingStudy.cu"],
		"identified": true,
	},
	"delegate": {
		"zh": "将本人权限限时借给助手",
		"en": "lend own permissions to an assistant, for a limited time",
		"scopes": [],
		"identified": true,
	},
	"break-glass": {
		"zh": "紧急情况下越权查看",
		"en": "read in an emergency what is otherwise hidden",
		"scopes": [],
		"identified": true,
	},
	"read-own-record": {
		"zh": "查看本人病历",
		"en": "read one's own record",
		"scopes": ["patient/*.rs", "patient/AuditEvent.rs"],
		"identified": true,
	},
	"read-pseudonymised": {
		"zh": "查看去标识化数据",
		"en": "read pseudonymised data",
		"scopes": [],
		"identified": false,
	},
	"train": {
		"zh": "用去标识化数据训练模型",
		"en": "train models on pseudonymised data",
		"scopes": [],
		"identified": false,
	},
	"operate-devices": {
		"zh": "查看模型、设备与接入点",
		"en": "read models, devices and endpoints",
		"scopes": ["user/Device.rs", "user/Endpoint.rs"],
		"identified": false,
	},
	"read-definitions": {
		"zh": "查看术语与结构定义",
		"en": "read terminology and definitions",
		"scopes": [
			"user/CodeSystem.rs",
			"user/ValueSet.rs",
			"user/ConceptMap.rs",
			"user/StructureDefinition.rs",
			"user/Library.rs",
		],
		"identified": false,
	},
	"read-directory": {
		"zh": "查看机构、人员与设备目录",
		"en": "read the directory of institutions, staff and devices",
		"scopes": [
			"user/Organization.rs",
			"user/Practitioner.rs",
			"user/PractitionerRole.rs",
			"user/Endpoint.rs",
			"user/Device.rs",
		],
		"identified": false,
	},
	"read-audit": {
		"zh": "查看审计记录",
		"en": "read the audit trail",
		"scopes": ["user/AuditEvent.rs"],
		"identified": false,
	},
	"reidentify": {
		"zh": "由假名查回患者身份（留审计记录）",
		"en": "tell who stands behind a pseudonym (audited)",
		"scopes": [],
		"identified": true,
	},
	"review-break-glass": {
		"zh": "复核紧急访问",
		"en": "review emergency access",
		"scopes": [],
		"identified": false,
	},
	"maintain-record": {
		"zh": "维护病历库（需双因素）",
		"en": "maintain the record (a second factor is needed)",
		"scopes": ["foramen/admin"],
		"identified": false,
	},
	"manage-accounts": {
		"zh": "管理账号",
		"en": "manage accounts",
		"scopes": [],
		"identified": false,
	},
	"grant-permissions": {
		"zh": "授予与收回单项权限",
		"en": "grant and withdraw single permissions",
		"scopes": [],
		"identified": false,
	},
	"manage-institutions": {
		"zh": "管理全部机构",
		"en": "manage all institutions",
		"scopes": [],
		"identified": false,
	},
	"manage-clients": {
		"zh": "审批与管理应用",
		"en": "approve and manage apps",
		"scopes": [],
		"identified": false,
	},
	"try-launches": {
		"zh": "试启动应用并查看协议过程",
		"en": "try launches of apps and read the requests of the protocol",
		"scopes": [],
		"identified": false,
	},
}

roles := {
	"physician": [
		"read-identified",
		"verify-ai",
		"plan-care",
		"record-questionnaires",
		"request-analysis",
		"delegate",
	],
	# Pseudonymised data are no FHIR scope: identified data are not for research.
	"researcher": ["read-pseudonymised"],
	# Engineers never read identified data (contract module 7).
	"engineer": ["operate-devices", "read-definitions", "try-launches"],
	"system-administrator": [
		"read-audit",
		"read-directory",
		"read-definitions",
		"maintain-record",
		"manage-accounts",
		"grant-permissions",
		"manage-institutions",
		"manage-clients",
		"review-break-glass",
		"try-launches",
	],
	"institution-administrator": [
		"read-directory",
		"read-definitions",
		"manage-accounts",
		"grant-permissions",
		"review-break-glass",
	],
	# An assistant (助手) has nothing but what a physician lends or an administrator grants.
	"assistant": [],
	# A patient reaches the own compartment only; a user/ scope would reach everybody.
	"patient": ["read-own-record"],
	# A service is granted what its client was registered with, nothing as an account.
	"service": [],
}

# Which permissions an account of the role may be granted one by one or be lent, beside what the role has. Everything
# else is out of reach, whoever grants it: no grant gives identified data to a researcher, engineer or administrator.
grantable := {
	"physician": {"annotate", "manage-images", "train", "read-pseudonymised", "reidentify", "break-glass", "try-launches"},
	"researcher": {"train", "read-definitions"},
	"engineer": {"train", "read-pseudonymised", "read-directory"},
	"system-administrator": {"operate-devices"},
	"institution-administrator": {"operate-devices"},
	"assistant": {
		"read-identified",
		"plan-care",
		"record-questionnaires",
		"request-analysis",
		"annotate",
		"manage-images",
		"read-directory",
		"read-definitions",
	},
	"patient": set(),
	"service": set(),
}

# What a physician may lend. The judgement on AI results is not: whoever signs answers for it (ADR 0005).
lendable := {"read-identified", "plan-care", "record-questionnaires", "request-analysis", "annotate"}

held contains name if some name in roles[input.role]

reachable contains name if some name in held

reachable contains name if some name in grantable[input.role]

# A question that leaves a part out is no question: what is not known to be withdrawn would be kept.
complete if {
	is_array(input.granted)
	is_array(input.lent)
	is_array(input.withdrawn)
}

# What an account may do: role, single grants and what is lent to it, as far as the role can have it, less what is
# withdrawn. An unknown role has nothing.
effective contains name if {
	complete
	some name in held
	not name in input.withdrawn
}

effective contains name if {
	complete
	some name in input.granted
	name in reachable
	not name in input.withdrawn
}

effective contains name if {
	complete
	some name in input.lent
	name in reachable
	not name in input.withdrawn
}

allowed_scopes contains scope if {
	some name in effective
	some scope in permissions[name].scopes
}

# Answer for one account: its permissions, the scopes they allow at most, and what it could be granted.
rights := {"permissions": sort(effective), "scopes": sort(allowed_scopes), "reachable": sort(reachable)}

# Sets are no JSON objects: for pages that show them.
rights_tables := {"lendable": sort(lendable)}
