"""The curves of a training run as one HTML page that needs nothing else and renews itself while the run goes on.

Inline SVG (https://www.w3.org/TR/SVG2/), no script; the page lies beside the run and is replaced whole (stage 11).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, select_autoescape

from ai_services.training.tracking.run_record import RunRecord, RunRecordError, read, read_steps

FILE = "curves.html"
WIDTH, HEIGHT = 720.0, 220.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 76.0, 12.0, 18.0, 30.0
_MOST_POINTS = 600
_LONGEST_AVERAGE = 25
_FIGURES = (
    ("loss", "损失", "loss", min),
    ("validation_dice", "验证 Dice", "validation Dice", max),
    ("validation_auroc", "验证 AUROC", "validation AUROC", max),
    ("rate", "学习率", "learning rate", None),
)

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled place on an axis, in the picture's units."""

    place: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One curve: its names, its line, its moving average, its axes, its last value and its best (or None)."""

    zh: str
    en: str
    line: str
    average: str | None
    dots: tuple[Point, ...]
    horizontal: tuple[Tick, ...]
    vertical: tuple[Tick, ...]
    last: float
    best: float | None


def write_page(folder: Path, state: str) -> bool:
    """Write the page of the run in a folder; False where there is no run yet.

    Parameters
    ----------
    state : ``running``, ``finished`` or ``stopped``
    """
    try:
        record = read(folder)
    except RunRecordError:
        return False
    staged = folder / f".{FILE}.part"
    staged.write_text(page_of(record, read_steps(folder), state), encoding="utf-8")
    staged.rename(folder / FILE)
    return True


def page_of(record: RunRecord, steps: Sequence[dict[str, float]], state: str) -> str:
    """The page of a run."""
    total = int(record.recipe["steps"])
    done = int(steps[-1]["step"]) if steps else 0
    recent = [item["seconds"] for item in steps[-20:]]
    remaining_s = (total - done) * sum(recent) / len(recent) if recent else None
    charts = [
        chart
        for name, zh, en, best in _FIGURES
        if (chart := chart_of([(item["step"], item[name]) for item in steps if name in item], total, zh, en, best))
    ]
    template = Environment(
        loader=PackageLoader("ai_services.training.tracking"), autoescape=select_autoescape(("html",))
    ).get_template("curves.html")
    return template.render(
        record=record,
        state=state,
        done=done,
        total=total,
        remaining=None if remaining_s is None or state != "running" else _duration(remaining_s),
        charts=charts,
        width=WIDTH,
        height=HEIGHT,
        left=_LEFT,
        right=WIDTH - _RIGHT,
        bottom=HEIGHT - _BOTTOM,
        top=_TOP,
    )


def chart_of(
    points: Sequence[Point], total: int, zh: str, en: str, best: Callable[[Sequence[float]], float] | None = None
) -> Chart | None:
    """A chart of (step, value); None without a value.

    Parameters
    ----------
    points : in order of the step
    total : steps of the whole run: the width of the picture
    best : `min` or `max` where less or more is better; `min` also draws a moving average over the values
    """
    if not points:
        return None
    values = [value for _, value in points]
    low, high = min(values), max(values)
    if high - low < 1e-12:
        low, high = low - abs(low) * 0.05 - 1e-9, high + abs(high) * 0.05 + 1e-9

    def placed(point: Point) -> Point:
        x = _LEFT + point[0] / max(total, 1) * (WIDTH - _LEFT - _RIGHT)
        y = _TOP + (high - point[1]) / (high - low) * (HEIGHT - _TOP - _BOTTOM)
        return round(x, 1), round(y, 1)

    shown = [placed(point) for point in _thinned(points)]
    averaged = None
    if best is min and len(points) > 2:
        averaged = _path([placed(point) for point in _thinned(_averaged(points))])
    return Chart(
        zh=zh,
        en=en,
        line=_path(shown),
        average=averaged,
        dots=tuple(shown) if len(points) <= 40 else (),
        horizontal=tuple(Tick(placed((step, low))[0], f"{step:.0f}") for step in (0, total / 2, total)),
        vertical=tuple(
            Tick(placed((0, low + share * (high - low)))[1], _label(low + share * (high - low)))
            for share in (0, 0.5, 1)
        ),
        last=values[-1],
        best=best(values) if best else None,
    )


def _averaged(points: Sequence[Point]) -> list[Point]:
    """Mean of the last values at each step."""
    window = min(max(len(points) // 20, 3), _LONGEST_AVERAGE)
    total, found = 0.0, []
    for index, (step, value) in enumerate(points):
        total += value - (points[index - window][1] if index >= window else 0.0)
        found.append((step, total / min(index + 1, window)))
    return found


def _thinned(points: Sequence[Point]) -> list[Point]:
    """At most some hundred points, the last among them: a page of a long run stays small."""
    stride = -(-len(points) // _MOST_POINTS)
    return [*points[:-1:stride], points[-1]]


def _path(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x} {y}" for x, y in points)


def _label(value: float) -> str:
    """A number of at most five characters: the margin is narrow."""
    return f"{value:.2g}" if value == 0 or abs(value) >= 0.01 else f"{value:.0e}".replace("e-0", "e-")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
