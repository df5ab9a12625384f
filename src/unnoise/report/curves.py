"""Long curves made short enough for a page."""

import math
from itertools import pairwise

from unnoise.report.runs import Curve


def thinned(curve: Curve, most: int) -> Curve:
    """At most ``most`` (≥ 4) of a curve's own points, such that no peak is lost.

    The steps are cut into equal parts, of each of which the least and the greatest value stay; so
    do the first and the last point. Values that are not finite go, if anything has to go.
    """
    if len(curve) <= most:
        return curve
    parts = (most - 2) // 2
    bounds = [round(i * (len(curve) - 2) / parts) + 1 for i in range(parts + 1)]
    kept = {0, len(curve) - 1}
    for start, stop in pairwise(bounds):
        finite = [i for i in range(start, stop) if math.isfinite(curve[i][1])]
        if finite:
            kept |= {min(finite, key=lambda i: curve[i][1]), max(finite, key=lambda i: curve[i][1])}
    return [curve[i] for i in sorted(kept)]


def packed(curve: Curve, most: int = 1000) -> list[list[float | None]]:
    """[steps, values] for the page: thinned, to six digits, None where a value is not finite."""
    short = thinned(curve, most)
    values = [float(f"{v:.6g}") if math.isfinite(v) else None for _, v in short]
    return [[step for step, _ in short], values]
