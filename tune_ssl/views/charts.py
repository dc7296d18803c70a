"""Two pictures as SVG, to stand in a page: bars with intervals, curves over numbers of trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH = 640
COLORS = ("#1f5fa8", "#d1662b", "#3a8a4d")


def bars(rows: Sequence[tuple[str, float, float, float]], *, line: tuple[str, float]) -> str:
    """Return bars of shares in [0, 1], each with its name, interval, and a line across all.

    Args:
        rows: (name, share, low, high) from top to bottom.
        line: what it is, and where it stands.
    """
    left, step = 150, 26
    scale = WIDTH - left - 20
    height = step * (len(rows) + 1) + 6
    drawn = []
    for place, (name, share, low, high) in enumerate(rows):
        y = step * place + step / 2
        drawn += [
            _text(left - 8, y + 5, name, anchor="end"),
            f'<rect x="{left}" y="{y - 7:.1f}" width="{scale * share:.1f}" height="14" fill="#9dbbe0"/>',
            _line(left + scale * low, y, left + scale * high, y, COLORS[0], 2),
        ]
    x = left + scale * line[1]
    drawn.append(_line(x, 0, x, step * len(rows), COLORS[1], 1.5))
    drawn.append(_text(x, height - 12, f"{line[0]} {100 * line[1]:.1f} %", anchor="middle"))
    return _svg(height, drawn)


def curves(places: Sequence[int], lines: Mapping[str, Sequence[float]], below: str) -> str:
    """Return curves of shares in [0, 1] over numbers >= 1 on a log scale; nothing for fewer than two."""
    if len(places) < 2:
        return ""
    left, top, bottom = 50, 10, 210
    first, last = math.log(places[0]), math.log(places[-1])

    def at(place: int, share: float) -> tuple[float, float]:
        part = (math.log(place) - first) / (last - first)
        return left + part * (WIDTH - left - 30), bottom - share * (bottom - top)

    drawn = []
    for share in (0.0, 0.5, 1.0):
        y = at(places[0], share)[1]
        drawn += [
            _line(left, y, WIDTH - 30, y, "#ddd", 1),
            _text(left - 6, y + 5, f"{share:.0%}", "end"),
        ]
    drawn += [_text(at(place, 0)[0], bottom + 18, str(place), "middle") for place in places]
    drawn.append(_text(WIDTH / 2, bottom + 36, below, "middle"))
    for number, (name, shares) in enumerate(lines.items()):
        color = COLORS[number % len(COLORS)]
        points = " ".join(
            "{:.1f},{:.1f}".format(*at(place, share))
            for place, share in zip(places, shares, strict=True)
        )
        y = bottom + 58 + 20 * number
        drawn += [
            f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>',
            _line(left, y - 4, left + 24, y - 4, color, 2),
            _text(left + 32, y, name),
        ]
    return _svg(bottom + 64 + 20 * len(lines), drawn)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, color: str, width: float) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{color}" stroke-width="{width:g}"/>'


def _svg(height: float, drawn: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" role="img" font-size="13" '
        f'font-family="system-ui,sans-serif">{"".join(drawn)}</svg>'
    )
