"""How much room images take and when it runs out: arithmetic from measured bytes, every step shown. Pure.

Terabytes are decimal (10^12 bytes), as disks are sold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

TB = 10**12
_DAYS = 365


@dataclass(frozen=True, slots=True)
class StudySize:
    """One study as it was measured: bytes of its files as they lie."""

    modality: str
    instances: int
    size: int


@dataclass(frozen=True, slots=True)
class ModalitySize:
    """Measured studies of one modality."""

    modality: str
    studies: int
    instances: int
    size: int
    mean_size: float
    median_size: float
    largest: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is assumed, and said so.

    Parameters
    ----------
    capacity_tb : room there is, in 10^12 bytes
    studies_per_day : new studies, every day of the year, by modality
    growth_per_year : 0.1: a tenth more studies every year
    copies : how often each byte is stored (2: a second site or backup)
    reserve : part of the room that stays free
    compression : bytes at rest by bytes as received; 1.0: stored as received, as now
    """

    capacity_tb: float
    studies_per_day: dict[str, float]
    growth_per_year: float = 0.0
    copies: int = 1
    reserve: float = 0.15
    compression: float = 1.0


@dataclass(frozen=True, slots=True)
class Year:
    """One year of the forecast, in bytes."""

    number: int
    added: float
    total: float
    full: bool


@dataclass(frozen=True, slots=True)
class Forecast:
    """Years until the room is used up; `days_left` None: not within the years looked at."""

    usable: float
    per_day: float
    years: tuple[Year, ...]
    days_left: int | None


def by_modality(studies: Sequence[StudySize]) -> list[ModalitySize]:
    """Summarise measured studies; the largest sum first."""
    found = []
    for modality in {study.modality for study in studies}:
        own = [study for study in studies if study.modality == modality]
        sizes = [study.size for study in own]
        found.append(
            ModalitySize(
                *(modality, len(own), sum(study.instances for study in own), sum(sizes)),
                *(mean(sizes), median(sizes), max(sizes)),
            )
        )
    return sorted(found, key=lambda one: (-one.size, one.modality))


def forecast(stored: int, sizes: Sequence[ModalitySize], plan: Plan, years: int = 15) -> Forecast:
    """Reckon with the mean bytes of a study of each modality.

    Parameters
    ----------
    stored : bytes that lie there now
    years : how far to look

    Raises
    ------
    ValueError
        A modality is planned of which none was measured: its size would be a guess.
    """
    means = {one.modality: one.mean_size for one in sizes}
    unknown = sorted(set(plan.studies_per_day) - set(means))
    if unknown:
        raise ValueError(f"No study of modality {', '.join(unknown)} was measured")
    factor = plan.copies * plan.compression
    per_day = sum(count * means[modality] for modality, count in plan.studies_per_day.items()) * factor
    usable = plan.capacity_tb * TB * (1 - plan.reserve)
    total, rows, days_left = float(stored * plan.copies), [], None
    if total >= usable:
        days_left = 0
    for number in range(1, years + 1):
        daily = per_day * (1 + plan.growth_per_year) ** (number - 1)
        added = daily * _DAYS
        if days_left is None and total + added >= usable:
            days_left = (number - 1) * _DAYS + int((usable - total) / daily)
        total += added
        rows.append(Year(number, added, total, total >= usable))
    return Forecast(usable, per_day, tuple(rows), days_left)
