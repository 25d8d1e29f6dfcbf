"""Every word of the pages exists in both languages, and scopes are explained in words."""

from __future__ import annotations

import pytest

from foramen.identity.oauth.scopes import PLAIN_SCOPES
from foramen.identity.text import ERRORS, WORDS, explain_scope


def test_both_languages_have_the_same_words():
    assert set(WORDS["zh"]) == set(WORDS["en"])
    assert set(ERRORS["zh"]) == set(ERRORS["en"])


@pytest.mark.parametrize("language", ["zh", "en"])
def test_plain_scopes_are_explained(language: str):
    for scope in PLAIN_SCOPES:
        assert explain_scope(scope, language) != scope


def test_resource_scopes_are_explained():
    assert (
        explain_scope("patient/Observation.rs", "en")
        == "read and search observations and results of the chosen patient"
    )
    assert explain_scope("user/*.read", "zh") == "读取、查找您有权查看的所有患者的全部病历资料"
    assert explain_scope("user/CodeSystem.rs", "zh") == "读取、查找代码系统"
    assert explain_scope("user/Organization.r", "en") == "read institutions"
    assert explain_scope("user/CarePlan.cu", "en") == "create and change care plans of every patient you may see"
