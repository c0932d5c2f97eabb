"""The "Perhaps you meant ..." of PGRST202 and PGRST205: a small fuzzy set, as PostgREST's.

A name is cut into 3-grams (then 2-grams); names that share one compete by edit distance, and the best
one at or above a similarity of one third is the hint. Nothing else may depend on this module.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from math import sqrt
from typing import Final

_MINIMUM: Final = 0.33
_CANDIDATES: Final = 50


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None when nothing is near enough."""
    wanted = name.lower()
    names = {item.lower(): item for item in known}
    if wanted in names:
        return names[wanted]
    for size in (3, 2):
        mine = _grams(wanted, size)
        scored = []
        for normal in names:
            theirs = _grams(normal, size)
            shared = sum(count * theirs[gram] for gram, count in mine.items())
            if shared:
                scored.append((shared / (_norm(mine) * _norm(theirs)), normal))
        nearest = sorted(scored, key=lambda pair: -pair[0])[:_CANDIDATES]
        likeness = [
            (1 - _distance(wanted, normal) / max(len(wanted), len(normal)), normal) for _, normal in nearest
        ]
        best = max(likeness, key=lambda pair: pair[0], default=(0.0, ""))
        if best[0] >= _MINIMUM:
            return names[best[1]]
    return None


def _grams(text: str, size: int) -> Counter[str]:
    # Only letters, digits, commas and spaces make grams; the edit distance sees the whole name.
    padded = "-" + re.sub(r"[^a-z0-9\u00df-\u00ff, ]+", "", text) + "-"
    padded += "-" * (size - len(padded))
    return Counter(padded[start : start + size] for start in range(len(padded) - size + 1))


def _norm(grams: Counter[str]) -> float:
    return sqrt(sum(count * count for count in grams.values()))


def _distance(one: str, other: str) -> int:
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        above, row[0] = row[0], i
        for j, right in enumerate(other, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (left != right))
    return row[-1]
