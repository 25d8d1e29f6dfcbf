"""The registry of model versions: what may be registered, released, routed, rolled back, and what is refused."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_services.models.migrations import migrate
from ai_services.models.registry import PackageError, load_manifest
from ai_services.models.release import SIGNATURE_FILE, sign_package, signer
from ai_services.models.routing import RoutingError, Rule, choose, read_rules
from ai_services.models.runtime import ModelIntegrityError
from ai_services.models.stages import CHECKLIST, Stage, StageError
from ai_services.models.versions import ModelRegistry
from tests.builders.model_package import model_package

NAME = "lumbar_mr"
BUILT_IN = load_manifest(NAME).version


@pytest.fixture
def registry(database_url: str, tmp_path: Path) -> ModelRegistry:
    migrate(database_url)
    registry = ModelRegistry(database_url, tmp_path / "home")
    registry.take_in_what_came_with_the_software()
    return registry


def release(registry: ModelRegistry, version: str) -> None:
    registry.move(NAME, version, Stage.SHADOW, "dr-li", "looks good")
    registry.move(NAME, version, Stage.RELEASED, "dr-li", "looked at", CHECKLIST)


def test_what_came_with_the_software_speaks_until_a_person_releases_another(
    registry: ModelRegistry, tmp_path: Path
) -> None:
    current = registry.current(NAME)
    assert current is not None
    assert (current.version, current.stage) == (BUILT_IN, Stage.RELEASED)
    registry.register(model_package(tmp_path / "next", "9.0.0"), "dr-li", "trained on more")
    assert registry.version(NAME, "9.0.0").stage is Stage.CANDIDATE
    assert registry.current(NAME) == current
    release(registry, "9.0.0")
    assert registry.current(NAME) == registry.version(NAME, "9.0.0")
    assert registry.version(NAME, BUILT_IN).stage is Stage.RETIRED
    # A new start does not undo what a person decided.
    registry.take_in_what_came_with_the_software()
    assert registry.current(NAME) == registry.version(NAME, "9.0.0")
    steps = [(item.version, item.to_stage, item.by_whom) for item in registry.history(NAME)]
    assert steps[:2] == [("9.0.0", "released", "dr-li"), (BUILT_IN, "retired", "dr-li")]
    assert registry.history(NAME)[0].confirmed == CHECKLIST


def test_a_release_needs_the_shadow_stage_and_the_whole_checklist(registry: ModelRegistry, tmp_path: Path) -> None:
    registry.register(model_package(tmp_path / "next", "9.0.0"), "dr-li", "trained on more")
    with pytest.raises(StageError, match="candidate version cannot become released"):
        registry.move(NAME, "9.0.0", Stage.RELEASED, "dr-li", "at once", CHECKLIST)
    registry.move(NAME, "9.0.0", Stage.SHADOW, "dr-li", "beside")
    with pytest.raises(StageError, match=CHECKLIST[-1]):
        registry.move(NAME, "9.0.0", Stage.RELEASED, "dr-li", "nearly", CHECKLIST[:-1])
    with pytest.raises(StageError, match="who takes it and why"):
        registry.move(NAME, "9.0.0", Stage.RELEASED, " ", "looked at", CHECKLIST)
    assert registry.version(NAME, "9.0.0").stage is Stage.SHADOW


def test_rollback_is_one_step_and_a_recalled_version_never_comes_back(registry: ModelRegistry, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no earlier release"):
        registry.roll_back(NAME, "dr-li", "wrong")
    registry.register(model_package(tmp_path / "next", "9.0.0"), "dr-li", "trained on more")
    release(registry, "9.0.0")
    assert registry.roll_back(NAME, "dr-li", "grades too high", recall=True).version == BUILT_IN
    assert registry.version(NAME, "9.0.0").stage is Stage.RECALLED
    for stage in (Stage.RELEASED, Stage.SHADOW, Stage.CANDIDATE):
        with pytest.raises(StageError, match="it can become nothing"):
            registry.move(NAME, "9.0.0", stage, "dr-li", "again", CHECKLIST)
    with pytest.raises(RoutingError, match="rule 1"):
        registry.set_rules(NAME, [Rule({}, "9.0.0")], "dr-li")
    with pytest.raises(StageError, match="current release"):
        registry.move(NAME, BUILT_IN, Stage.RETIRED, "dr-li", "none left")


def test_the_only_release_can_be_recalled_and_then_nobody_speaks(registry: ModelRegistry) -> None:
    """CT has no release but the one that a person made: a wrong one must not go on speaking for want of another."""
    (candidate,) = registry.versions("lumbar_ct")
    registry.move("lumbar_ct", candidate.version, Stage.SHADOW, "dr-li", "to try")
    registry.move("lumbar_ct", candidate.version, Stage.RELEASED, "dr-li", "to try", CHECKLIST)
    registry.set_rules("lumbar_ct", [Rule({"modality": ("ct",)}, candidate.version)], "dr-li")
    with pytest.raises(StageError, match="no earlier release"):
        registry.roll_back("lumbar_ct", "dr-li", "back")
    assert registry.roll_back("lumbar_ct", "dr-li", "wrong", recall=True).stage is Stage.RECALLED
    assert registry.current("lumbar_ct") is None
    assert registry.rules("lumbar_ct") == ()
    registry.take_in_what_came_with_the_software()
    assert registry.current("lumbar_ct") is None


def test_two_who_release_at_once_leave_one_current_release(registry: ModelRegistry, tmp_path: Path) -> None:
    versions = ["9.0.0", "9.1.0"]
    for version in versions:
        registry.register(model_package(tmp_path / version, version), "dr-li", "trained")
        registry.move(NAME, version, Stage.SHADOW, "dr-li", "beside")
    threads = [
        threading.Thread(target=registry.move, args=(NAME, version, Stage.RELEASED, "dr-li", "now", CHECKLIST))
        for version in versions
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    released = [item for item in registry.versions(NAME) if item.stage is Stage.RELEASED]
    assert len(released) == 1
    assert released[0].current


def test_a_package_that_is_not_what_it_says_is_refused(registry: ModelRegistry, tmp_path: Path) -> None:
    package = model_package(tmp_path / "next", "9.0.0")
    (package / "weights" / "grading.onnx").write_bytes(b"poisoned")
    with pytest.raises(PackageError, match="grading"):
        registry.register(package, "dr-li", "trained")
    other = model_package(tmp_path / "other", "9.0.0")
    (other / "MODEL_CARD.md").unlink()
    with pytest.raises(PackageError, match="MODEL_CARD"):
        registry.register(other, "dr-li", "trained")
    manifest = (tmp_path / "other" / "manifest.yaml").read_text()
    (tmp_path / "other" / "manifest.yaml").write_text(manifest.replace("weights/grading.onnx", "../../secret"))
    with pytest.raises(PackageError, match="outside the package"):
        registry.register(tmp_path / "other", "dr-li", "trained")
    with pytest.raises(PackageError, match=r"manifest\.yaml"):
        registry.register(tmp_path, "dr-li", "trained")
    assert [item.version for item in registry.versions(NAME)] == [BUILT_IN]


def test_a_package_signed_elsewhere_needs_the_key_of_who_signed_it(registry: ModelRegistry, tmp_path: Path) -> None:
    package = model_package(tmp_path / "next", "9.0.0")
    elsewhere = signer(tmp_path / "elsewhere")
    (package / SIGNATURE_FILE).write_text(sign_package(package, elsewhere)[1])
    with pytest.raises(PackageError, match="another installation"):
        registry.register(package, "dr-li", "trained elsewhere")
    another = signer(tmp_path / "another").public()
    with pytest.raises(PackageError, match="another installation"):
        registry.register(package, "dr-li", "trained elsewhere", [another, {"kty": "EC"}])
    registry.register(package, "dr-li", "trained elsewhere", [another, elsewhere.public()])
    changed = model_package(tmp_path / "changed", "9.1.0")
    (changed / SIGNATURE_FILE).write_text((package / SIGNATURE_FILE).read_text())
    with pytest.raises(PackageError, match="not the one that was signed"):
        registry.register(changed, "dr-li", "trained elsewhere", [elsewhere.public()])


def test_a_version_never_changes(registry: ModelRegistry, tmp_path: Path) -> None:
    registry.register(model_package(tmp_path / "next", "9.0.0"), "dr-li", "trained")
    with pytest.raises(PackageError, match="new version"):
        registry.register(model_package(tmp_path / "other", "9.0.0", temperature=2.0), "dr-li", "trained")
    registry.register(tmp_path / "next", "dr-li", "the same once more")
    assert len([item for item in registry.history(NAME) if item.version == "9.0.0"]) == 1


def test_weights_and_manifest_exchanged_together_on_disk_are_refused(registry: ModelRegistry, tmp_path: Path) -> None:
    """Hashes alone would pass: manifest and weights fit each other, but nobody signed them."""
    taken = registry.register(model_package(tmp_path / "next", "9.0.0"), "dr-li", "trained")
    assert registry.open(taken).constants["calibration"]["temperature"] != 2.0
    stored = tmp_path / "home" / "models" / taken.folder
    forged = model_package(tmp_path / "forged", "9.0.0", temperature=2.0)
    (stored / "manifest.yaml").write_bytes((forged / "manifest.yaml").read_bytes())
    with pytest.raises(ModelIntegrityError, match="not the one that was signed"):
        registry.open(taken)


def test_a_rule_takes_its_share_and_a_study_always_the_same(registry: ModelRegistry, tmp_path: Path) -> None:
    registry.register(model_package(tmp_path / "next", "9.0.0"), "dr-li", "trained")
    release(registry, "9.0.0")
    registry.roll_back(NAME, "dr-li", "compare them")
    rules = read_rules([{"when": {"sequence": ["T2-SPACE"], "institution": "north"}, "version": "9.0.0", "share": 0.5}])
    registry.set_rules(NAME, rules, "dr-li")
    assert registry.rules(NAME) == rules
    assert registry.version(NAME, "9.0.0").stage is Stage.RELEASED
    fitting = {"modality": "MR", "sequence": "t2-space", "institution": "north"}
    drawn = [choose(rules, fitting, f"1.2.{number}") for number in range(2000)]
    assert 0.45 < sum(version == "9.0.0" for version in drawn) / 2000 < 0.55
    assert drawn == [choose(rules, fitting, f"1.2.{number}") for number in range(2000)]
    assert choose(rules, {"modality": "MR", "sequence": "t2-space"}, "1.2.3") is None
    # Both versions of a comparison stay released when a third one is.
    registry.register(model_package(tmp_path / "third", "9.2.0"), "dr-li", "trained")
    release(registry, "9.2.0")
    assert registry.version(NAME, "9.0.0").stage is Stage.RELEASED


@pytest.mark.parametrize(
    "document",
    [
        {},
        [{}],
        [{"version": "1", "share": 0}],
        [{"version": "1", "share": True}],
        [{"version": "1", "when": {"patient": "x"}}],
        [{"version": "1", "when": {"modality": []}}],
        [{"version": 1.0}],
        [{"version": "1", "weight": 2}],
    ],
)
def test_rules_that_cannot_be_meant_are_refused(document: object) -> None:
    with pytest.raises(RoutingError):
        read_rules(document)


@given(
    st.dictionaries(st.sampled_from(["modality", "sequence"]), st.sampled_from(["mr", "ct", "t2"])),
    st.text("0123456789.", min_size=1),
)
def test_a_rule_without_conditions_takes_every_study(features: dict[str, str], study: str) -> None:
    assert choose([Rule({}, "2")], features, study) == "2"
    assert choose([Rule({"modality": ("us",)}, "3"), Rule({}, "2")], features, study) == "2"
