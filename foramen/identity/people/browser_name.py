"""A short name for a browser, so that a person recognises their own sessions; never used to decide anything.

RFC 9110 §10.1.5 (User-Agent)
"""

from __future__ import annotations

# The first word that is found wins: browsers built on others carry the names of those, too.
_BROWSERS = (
    ("Edg/", "Edge"),
    ("OPR/", "Opera"),
    ("QIHU", "360"),
    ("360SE", "360"),
    ("MicroMessenger/", "WeChat"),
    ("QQBrowser/", "QQ Browser"),
    ("Firefox/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)
_SYSTEMS = (
    ("HarmonyOS", "HarmonyOS"),
    ("OpenHarmony", "HarmonyOS"),
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)
_MAX_LENGTH = 80


def browser_name(user_agent: str) -> str:
    """Return `Chrome · Windows` and the like, or the beginning of what the program calls itself."""
    browser = next((name for word, name in _BROWSERS if word in user_agent), "")
    system = next((name for word, name in _SYSTEMS if word in user_agent), "")
    return f"{browser} · {system}" if browser and system else user_agent[:_MAX_LENGTH]
