"""A watch as a page that needs nothing else, in Chinese and English: what alarms, what cannot be told, and charts."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from ai_services.monitoring.page_text import words
from ai_services.monitoring.watch import Watch

LANGUAGES = ("zh-CN", "en-US")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    loader = PackageLoader("ai_services.monitoring", "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def page_of(watch: Watch, made: str, language: str, other: str) -> str:
    """Draw the page.

    Parameters
    ----------
    watch : what is shown
    made : when it was computed
    language : ``zh-CN`` or ``en-US``
    other : file name of the page in the other language
    """
    template = _environment().get_template("watch.html")
    return template.render(watch=watch, made=made, language=language, other=other, t=words(language))


def write_pages(file: Path, watch: Watch, made: str) -> Path:
    """Write the Chinese page to `file` and the English one beside it; returns the English one's path."""
    english = file.with_name(f"{file.stem}.en{file.suffix}")
    file.write_text(page_of(watch, made, "zh-CN", english.name), encoding="utf-8")
    english.write_text(page_of(watch, made, "en-US", file.name), encoding="utf-8")
    return english
