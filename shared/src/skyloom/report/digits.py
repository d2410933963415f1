"""How numbers are written: as many digits as their uncertainty supports."""

import math

__all__ = ["duration", "number", "plus_minus", "with_interval"]


def number(value: float, decimals: int | None = None) -> str:
    """Four significant digits, or a given number of decimals; undefined values are said to be so.

    >>> number(0.123456), number(123456.0), number(float("nan")), number(3.0), number(0.98, 4)
    ('0.1235', '123456', 'undefined', '3', '0.9800')
    """
    if not math.isfinite(value):
        return "undefined" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if decimals is not None:
        text = f"{value:.{decimals}f}"
    elif value == int(value) and abs(value) < 1e9:
        text = str(int(value))
    elif abs(value) >= 1e6 or 0 < abs(value) < 1e-4:
        text = f"{value:.3e}"
    else:
        text = f"{value:.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"
    return text.replace("-", "−")


def decimals_for(spread: float, value: float) -> int | None:
    """Decimals that show a spread with two significant digits; None (four digits of the value) without a spread.

    >>> decimals_for(0.0123, 0.98), decimals_for(12.0, 340.0), decimals_for(0.0, 1.0)
    (3, 0, None)
    """
    if not math.isfinite(spread) or spread <= 0 or not math.isfinite(value):
        return None
    decimals = max(0, 1 - math.floor(math.log10(spread)))
    return decimals if decimals <= 7 else None


def plus_minus(mean: float, spread: float) -> str:
    """Mean and standard deviation with the digits that the deviation supports.

    >>> plus_minus(0.98123, 0.0042), plus_minus(-12.3456, 1.5), plus_minus(0.5, float("nan")), plus_minus(1.0, 0.0)
    ('0.9812 ± 0.0042', '−12.3 ± 1.5', '0.5000', '1 ± 0')
    """
    decimals = decimals_for(spread, mean)
    if not math.isfinite(spread) or not math.isfinite(mean):
        return number(mean)
    return f"{number(mean, decimals)} ± {number(spread, decimals)}"


def with_interval(value: float, low: float, high: float) -> tuple[str, str]:
    """A value and its interval, as text; the interval is empty where there is none.

    >>> with_interval(0.98123, 0.9751, 0.9873)
    ('0.9812', '0.9751 to 0.9873')
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return number(value), ""
    decimals = decimals_for((high - low) / 2, value)
    return number(value, decimals), f"{number(low, decimals)} to {number(high, decimals)}"


def duration(seconds: float) -> str:
    """
    >>> duration(42.3), duration(754), duration(8000), duration(200000), duration(float("nan"))
    ('42 s', '12 min 34 s', '2 h 13 min', '2 d 7 h', 'unknown')
    """
    if not math.isfinite(seconds):
        return "unknown"
    s = round(seconds)
    for large, small, size, part in (("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1)):
        if s >= size:
            return f"{s // size} {large} {s % size // part} {small}"
    return f"{s} s"
