"""Recipes: what is not said has a default, and what cannot be meant is refused by the element's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ai_services.training.engine.recipe import Recipe, RecipeError, read_recipe, recipe_of

GIVEN: dict[str, Any] = {"name": "tiny", "architecture": "unet"}


def test_a_recipe_is_read_and_named_by_everything_in_it(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("name: tiny\narchitecture: dynunet\ncrop: [64, 48]\nsteps: 10\n")
    recipe = read_recipe(file)
    assert recipe == Recipe(name="tiny", architecture="dynunet", crop=(64, 48), steps=10)
    assert recipe.digest == recipe_of({**GIVEN, "architecture": "dynunet", "crop": [64, 48], "steps": 10}).digest
    assert recipe.digest != recipe_of({**GIVEN, "architecture": "dynunet", "crop": [64, 48], "steps": 11}).digest


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ([], "mapping"),
        ({"name": "tiny"}, "architecture"),
        ({**GIVEN, "name": ""}, "name"),
        ({**GIVEN, "learning": 1}, "learning"),
        ({**GIVEN, "batch": 0}, "batch"),
        ({**GIVEN, "batch": True}, "batch"),
        ({**GIVEN, "steps": 1.5}, "steps"),
        ({**GIVEN, "rate": 0}, "rate"),
        ({**GIVEN, "rate": "fast"}, "rate"),
        ({**GIVEN, "precision": "int8"}, "precision"),
        ({**GIVEN, "parallel": "hope"}, "parallel"),
        ({**GIVEN, "crop": [50, 48]}, "crop"),
        ({**GIVEN, "crop": 64}, "crop"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(document: Any, named: str) -> None:
    with pytest.raises(RecipeError, match=named):
        recipe_of(document)


def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        read_recipe(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("name: [")
    with pytest.raises(RecipeError, match="cannot be read"):
        read_recipe(tmp_path / "broken.yaml")
