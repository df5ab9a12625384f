"""How numbers look on a page."""

import math
import re
from typing import Any

from markupsafe import Markup

EXPONENTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: Any) -> str:
    """A number with four digits and separated thousands; other values as they are."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return str(value).replace("nan", "NaN").replace("inf", "∞").replace("-", "−")
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = f"{value:.4g}"
    if "e" in digits:
        mantissa, exponent = digits.split("e")
        digits = f"{mantissa}·{_power_of_ten(int(exponent))}"
    return digits.replace("-", "−")


def _power_of_ten(exponent: int) -> str:
    return "10" + str(exponent).translate(EXPONENTS)


def with_error(value: float, error: float | None) -> str:
    """A value and its standard error, to two digits of the error; below 0.01 as (a ± b)·10ⁿ."""
    if not error or not math.isfinite(value) or not math.isfinite(error):
        return number(value)
    size = math.floor(math.log10(abs(value) or error))
    scale = size if size < -2 else 0
    value, error = value / 10.0**scale, error / 10.0**scale
    digits = max(0, 1 - math.floor(math.log10(error)))
    text = f"{value:,.{digits}f} ± {error:,.{digits}f}".replace("-", "−")
    return f"({text})·{_power_of_ten(scale)}" if scale else text


def duration(seconds: float | None) -> str:
    """Seconds, minutes, or hours and minutes."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def breakable(text: str) -> Markup:
    """Text in which long words may break after dots, underscores and the like; escaped."""
    parts = re.split(r"(?<=[._=/,])(?=[A-Za-z])|(?<=[_=/,])(?=\d)|(?<=\d[-_])(?=\w)", text)
    return Markup("<wbr>").join(parts)
