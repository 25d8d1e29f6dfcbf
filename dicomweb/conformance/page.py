"""/conformance: what this server does, for people (HTML, Chinese and English) and programs (JSON): PS3.18 §6.

Written from the table of calls and from what the store checks; nothing is typed twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import orjson
from pydicom.uid import UID
from starlette.requests import Request
from starlette.responses import Response

from dicomweb.conformance.capabilities import described
from dicomweb.instance_check import SUPPORTED, FailureReason
from dicomweb.media_types import accepted
from dicomweb.store.report import WarningReason
from dicomweb.workitems.part import SOCKET_PATHS
from foramen.kernel.errors import NotAcceptableError
from foramen.kernel.settings import Settings

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'",
    "Vary": "Accept",
}
_STYLE = (
    "body{font:15px/1.6 system-ui,'Noto Sans CJK SC',sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;"
    "color:#1c2733;background:#fbfcfd}h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}"
    ".table{overflow-x:auto}table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;"
    "padding:.35rem .6rem;border-bottom:1px solid #dfe6ec}th{background:#eef3f7}"
    "code{font-size:.9em;overflow-wrap:anywhere}"
)


def statement(settings: Settings) -> dict[str, Any]:
    """Everything the page says."""
    return {
        "base": settings.dicom_web_base,
        "resources": described(),
        "notifications": list(SOCKET_PATHS),
        "transferSyntaxes": [{"uid": uid, "name": UID(uid).name} for uid in sorted(SUPPORTED)],
        "failureReasons": [{"value": f"{reason:04X}H", "name": _words(reason.name)} for reason in FailureReason],
        "warningReasons": [{"value": f"{reason:04X}H", "name": _words(reason.name)} for reason in WarningReason],
        "limits": {"storeBytes": settings.max_stow_bytes, "storeIdleSeconds": settings.stow_idle_s},
        "security": "OAuth 2.0 bearer tokens with SMART scopes; every call and refusal is audited",
    }


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def conformance(request: Request, settings: Settings) -> Response:
    """Answer GET /conformance.

    Raises
    ------
    NotAcceptableError
        Neither HTML nor JSON is accepted.
    """
    for item in accepted(request):
        if item.media_type in ("text/html", "text/*", "*/*"):
            return Response(_html(statement(settings)), headers=_HEADERS, media_type="text/html; charset=utf-8")
        if item.admits("application/json"):
            return Response(orjson.dumps(statement(settings)), headers=_HEADERS, media_type="application/json")
    raise NotAcceptableError("Available: text/html, application/json")


def _html(said: dict[str, Any]) -> str:
    calls = [
        (
            method.get("standard", "—"),
            method["transaction"],
            f"<code>{method['name']} {escape(resource['path'])}</code>",
            f"<code>{escape(method.get('scope', ''))}</code>",
            ", ".join(f"<code>{escape(one)}</code>" for one in method.get("request", ())),
            ", ".join(f"<code>{escape(one)}</code>" for one in method.get("response", ())),
        )
        for resource in said["resources"]
        for method in resource["methods"]
    ]
    heads = ("标准 Standard", "事务 Transaction", "请求 Request", "权限 Scope", "提交 Takes", "返回 Gives")
    syntaxes = [(f"<code>{item['uid']}</code>", escape(item["name"])) for item in said["transferSyntaxes"]]
    reasons = [(item["value"], item["name"]) for kind in ("failureReasons", "warningReasons") for item in said[kind]]
    sockets = "、".join(f"<code>{escape(path)}</code>" for path in said["notifications"])
    limits = said["limits"]
    return (
        '<!doctype html><html lang="zh-CN"><head><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width,initial-scale=1"><title>DICOM 一致性声明 · DICOM conformance</title>'
        f"<style>{_STYLE}</style></head><body><h1>DICOM 一致性声明 <span lang=en>· DICOM conformance</span></h1>"
        f"<p><code>{escape(said['base'])}</code></p>"
        f"<p>每次调用均需 OAuth 2.0 访问令牌与 SMART 权限，并留有审计记录。<br>"
        f"<span lang=en>{said['security']}.</span></p>"
        f"<h2>事务 · <span lang=en>Transactions</span></h2>{_table(heads, calls)}"
        f"<h2>通知 · <span lang=en>Notifications</span></h2><p>WebSocket: {sockets}</p>"
        f"<h2>可存储的传输语法 · <span lang=en>Transfer syntaxes stored</span></h2>"
        f"{_table(('UID', '名称 Name'), syntaxes)}"
        f"<h2>存储失败与警告原因 · <span lang=en>Store failure and warning reasons</span></h2>"
        f"{_table(('值 Value', '含义 Meaning'), reasons)}"
        f"<h2>限制 · <span lang=en>Limits</span></h2><p>一次存储请求最多 {limits['storeBytes']} 字节；"
        f"无数据超过 {limits['storeIdleSeconds']:g} 秒即中止。<br><span lang=en>A Store request has at most "
        f"{limits['storeBytes']} bytes and is given up after "
        f"{limits['storeIdleSeconds']:g} s without a byte.</span></p>"
        "</body></html>"
    )


def _table(heads: tuple[str, ...], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{one}</th>' for one in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    # Wide tables scroll, by keyboard too.
    return f'<div class="table" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
