"""Register our own clients: backend services with their keys, and the first-party SMART apps. Harmless to repeat.

https://hl7.org/fhir/smart-app-launch/STU2.2/backend-services.html
"""

from __future__ import annotations

from sqlalchemy import update

from foramen.identity import tables
from foramen.identity.database import transaction
from foramen.identity.oauth.clients import PRIVATE_KEY, PUBLIC, Client, save_client
from foramen.kernel.secret_files import read_or_create_key
from foramen.kernel.settings import Settings

_SERVICES: dict[str, tuple[str, str, str]] = {
    "foramen-intake": (
        "影像登记服务",
        "Imaging intake",
        "system/Patient.rs system/ImagingStudy.crus system/Task.crus system/Endpoint.crus system/AuditEvent.c "
        "system/DiagnosticReport.rs system/ServiceRequest.rs foramen/gateway",
    ),
    "foramen-dimse": (
        "DICOM 网络服务",
        "DIMSE service",
        "system/Patient.rs system/ServiceRequest.rs system/Procedure.crus foramen/gateway",
    ),
    "foramen-worker": (
        "AI 分析服务",
        "AI worker",
        "system/Task.rus system/Patient.rs system/ImagingStudy.crs system/Observation.crus "
        "system/DiagnosticReport.crus system/CarePlan.crus system/RequestGroup.crus system/GuidanceResponse.crus "
        "system/Device.crus system/Provenance.crs system/QuestionnaireResponse.rs system/Condition.rs "
        "system/AuditEvent.c",
    ),
}
SERVICES = tuple(_SERVICES)
"""Client ids under which our own services act, with nobody behind them."""
_SIGN_IN = "openid fhirUser profile online_access"
_APPS: dict[str, tuple[str, str, str, str]] = {
    "portal": ("/", "Foramen 工作台", "Foramen portal", f"{_SIGN_IN} user/*.rs user/Task.rus"),
    "result-review": (
        "/apps/result-review/",
        "结果复核",
        "Result review",
        f"launch {_SIGN_IN} patient/*.rs user/*.rs user/Observation.u user/DiagnosticReport.u user/Provenance.c "
        "user/ImagingStudy.rs user/Task.crus",
    ),
    "care-plan": (
        "/apps/care-plan/",
        "治疗方案",
        "Care plan",
        f"launch {_SIGN_IN} patient/*.rs user/*.rs user/CarePlan.cu user/Provenance.c user/QuestionnaireResponse.cru "
        "user/Task.crus",
    ),
}
LAUNCHER, LAUNCHER_INTROSPECTION = "foramen-launcher", "foramen-launcher-introspection"
"""The launcher as an app, and as a resource server that asks what a token is."""


def bootstrap(settings: Settings, database_url: str) -> None:
    """Register our own clients for this origin. Makes no users and no passwords."""
    clients = [*_service_clients(settings), *_app_clients(settings)]
    if settings.launcher == "on":
        clients += _launcher_clients(settings)
    with transaction(database_url) as connection:
        for client in clients:
            save_client(connection, client)
        launcher = tables.client.c.client_id.in_([LAUNCHER, LAUNCHER_INTROSPECTION])
        connection.execute(update(tables.client).where(launcher).values(disabled=settings.launcher == "off"))


def _service_clients(settings: Settings) -> list[Client]:
    clients = []
    for client_id, (name_zh, name_en, scope) in _SERVICES.items():
        key = read_or_create_key(settings.home, client_id, "P-384")
        public = {**key.as_dict(private=False), "kid": key.kid, "alg": "ES384", "use": "sig"}
        clients.append(
            Client(
                client_id=client_id,
                auth_method=PRIVATE_KEY,
                scope=scope,
                name_zh=name_zh,
                name_en=name_en,
                first_party=True,
                jwks={"keys": [public]},
            )
        )
    return clients


def _app_clients(settings: Settings) -> list[Client]:
    return [
        Client(
            client_id=client_id,
            auth_method=PUBLIC,
            scope=scope,
            redirect_uris=(f"{settings.origin}{path}",),
            launch_url=None if client_id == "portal" else f"{settings.origin}{path}",
            name_zh=name_zh,
            name_en=name_en,
            first_party=True,
        )
        for client_id, (path, name_zh, name_en, scope) in _APPS.items()
    ]


def _launcher_clients(settings: Settings) -> list[Client]:
    """Return the launcher's own clients (docs/how-to/try_a_launch.md)."""
    key = read_or_create_key(settings.home, LAUNCHER_INTROSPECTION, "P-384")
    public = {**key.as_dict(private=False), "kid": key.kid, "alg": "ES384", "use": "sig"}
    app = Client(
        client_id=LAUNCHER,
        auth_method=PUBLIC,
        scope=f"launch launch/patient launch/encounter offline_access {_SIGN_IN} patient/*.rs user/*.rs",
        redirect_uris=(f"{settings.origin}/apps/launcher/callback",),
        launch_url=f"{settings.origin}/apps/launcher/app",
        name_zh="启动试验台",
        name_en="Launcher",
        first_party=True,
    )
    # Its scope lets it introspect any token; without a grant type that could be used, it gets none itself.
    introspection = Client(
        client_id=LAUNCHER_INTROSPECTION,
        auth_method=PRIVATE_KEY,
        scope="system/*.rs",
        name_zh="启动试验台（令牌自省）",
        name_en="Launcher (introspection)",
        first_party=True,
        jwks={"keys": [public]},
        grant_types=("refresh_token",),
    )
    return [app, introspection]
