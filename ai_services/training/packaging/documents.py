"""Model card and release checklist of a candidate, from what its training recorded; nothing is claimed (stage 11).

What was not measured is said to be so: a person completes the card before the release.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ai_services.models.registry import Manifest
from ai_services.models.stages import CHECKLIST

_WHERE: Mapping[str, str] = {
    "evaluation-read": "`foramen model evaluate FOLDER --page report.html` on patients that no training saw",
    "subgroups-read": "the same page: vendor, field strength, sex, sequence; fewer than five patients are not measured",
    "shadow-read": "`foramen model shadow VERSION` after it ran beside the released version",
    "model-card-complete": "MODEL_CARD.md: every line that says *to be completed*",
    "licences-of-data-clear": "MODEL_CARD.md, Data: licence and source of the dataset version",
}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the new weights of a candidate come from, for its documents.

    Parameters
    ----------
    words : paragraphs of the card's section Training
    data : paragraphs of its section Data
    figures : last figures of the training, by name; empty where none are known
    """

    words: str
    data: str
    figures: Mapping[str, float]


def model_card(manifest: Manifest, role: str, origin: Origin, base: Manifest, by_whom: str) -> str:
    """The card of a candidate."""
    told = "\n".join(f"- {name.replace('_', ' ')}: {value:.4f}" for name, value in sorted(origin.figures.items()))
    files = "\n".join(f"| {name} | `{file.identity.sha256}` |" for name, file in sorted(manifest.models.items()))
    kept = ", ".join(sorted(set(manifest.models) - {role}))
    taken_over = kept and f"Unchanged from {base.version}, with its constants: {kept}."
    calibration = kept and f"The calibration belongs to the outlines of {base.version} and has to be measured again."
    return f"""# Model card: {manifest.name} {manifest.version}

**Candidate. Not a medical device.** Outputs are proposals (`preliminary`) until a clinician has verified them.
候选版本, 非医疗器械; 未经医生复核不得用于临床。

## Intended use
{manifest.intended_use_en.strip()}

{manifest.intended_use_zh.strip()}

## Data
{origin.data}

## Training
Weights of `{role}` are new. {taken_over}

{origin.words}

Last figures of the training itself, on patients that it used to watch its progress; they measure no clinical use:
{told or "- none are known"}

## Measured
*To be completed*: not measured yet on patients kept aside. {calibration}

## Limits
*To be completed*: subgroups, robustness, what it must not be used for.

## Files
| role | SHA-256 |
|---|---|
{files}

Packaged by {by_whom}.
"""


def checklist(manifest: Manifest) -> str:
    """What the person who releases the candidate confirms, and where each item is found."""
    rows = "\n".join(f"- [ ] **{item}**: {_WHERE[item]}" for item in CHECKLIST)
    confirmed = " ".join(f"--confirm {item}" for item in CHECKLIST)
    return f"""# Release checklist: {manifest.name} {manifest.version}

Who confirms an item has read what it names. Nothing here is filled in by a program.

{rows}

```
foramen model promote {manifest.version} --to shadow --by NAME --reason TEXT
foramen model promote {manifest.version} --by NAME --reason TEXT {confirmed}
```
"""


def data_of_run(dataset: Mapping[str, Any]) -> str:
    """The section Data of a run on one of our dataset versions."""
    patients = {split: len(names) for split, names in dataset["patients"].items()}
    aside = ", ".join(sorted(dataset["patients"]["test"], key=lambda name: (len(name), name))) or "nobody"
    proof = dataset["deidentification"]
    proven = f"report `{proof}`" if proof else "no report was given; only data that was public before needs none"
    return f"""Dataset version `{dataset["name"]}-{dataset["digest"][:12]}` (SHA-256 `{dataset["digest"]}`),
{dataset["source"]}. Licence: {dataset["licence"]}. De-identification: {proven}.
Patients: {patients["train"]} for training, {patients["validation"]} to watch it, {patients["test"]} that it never saw
({aside})."""


def words_of_run(record: Mapping[str, Any], step: int) -> str:
    """The section Training of a run, to the digit."""
    sessions = "\n".join(
        f"| {item['started']} | {item['from_step']} | {item['processes']} | {item['device']} | `{item['code'][:12]}` | "
        f"{', '.join(f'{name} {version}' for name, version in sorted(item['libraries'].items()))} |"
        for item in record["sessions"]
    )
    return f"""{step} steps; recipe `{record["recipe_digest"][:12]}`:

```json
{json.dumps(record["recipe"], indent=1, ensure_ascii=False)}
```

| session | from step | processes | device | code | libraries |
|---|---|---|---|---|---|
{sessions}"""
