r"""Tables for a paper: booktabs, everything escaped, run ids and commits in comments above.

>>> escape("50% of a_b & ~c^2 {d} #1 $x$ \\")
'50\\% of a\\_b \\& \\textasciitilde{}c\\textasciicircum{}2 \\{d\\} \\#1 \\$x\\$ \\textbackslash{}'
"""

from collections.abc import Sequence

__all__ = ["escape", "math_number", "table"]

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "±": r"$\pm$",
    "−": r"$-$",
    "–": "--",
    "∞": r"$\infty$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "\n": " ",
} | {c: f"\\{c}" for c in "&%$#_{}"}


def escape(text: str) -> str:
    """Text that LaTeX prints as it is written here."""
    return "".join(_ESCAPES.get(c, c) for c in text)


def math_number(text: str) -> str:
    r"""A number as `skyloom.report.digits` writes it, in math mode.

    >>> math_number("−0.12 ± 0.03"), math_number("undefined"), math_number("1.2e−05")
    ('$-0.12 \\pm 0.03$', 'undefined', '$1.2 \\times 10^{-5}$')
    """
    if not any(c.isdigit() for c in text):
        return escape(text)
    plain = text.replace("−", "-")
    words = [_power(word) for word in plain.split(" ")]
    return f"${' '.join(words)}$".replace("±", r"\pm")


def _power(word: str) -> str:
    mantissa, e, exponent = word.partition("e")
    return rf"{mantissa} \times 10^{{{int(exponent)}}}" if e and exponent.lstrip("+-").isdigit() else word


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, label: str, left: int) -> str:
    """A booktabs table of cells that are LaTeX already; the first `left` columns are aligned left, the rest right."""
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{caption}}}",
        rf"  \label{{{label}}}",
        rf"  \begin{{tabular}}{{{'l' * left}{'r' * (len(columns) - left)}}}",
        r"    \toprule",
        "    " + " & ".join(columns) + r" \\",
        r"    \midrule",
        *("    " + " & ".join(row) + r" \\" for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"
