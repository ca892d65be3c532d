"""Numbers, paths and free text as a run writes them: `16.8 k`, `1.2 GFLOP`, `0.9944`."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

MISSING = "–"
_PLAIN = re.compile(r"[A-Za-z0-9_./@-]+")
_UNITS = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")
_ASCII = str.maketrans(
    {"→": "->", "×": "x", "α": "alpha", "±": "+/-", "–": "-", "·": "|", "…": "~"}
)


def written(paths: Iterable[Path]) -> list[str]:
    """What a command says last, a line a file: `page: …` of what a browser opens, `written: …`."""
    return [f"{'page' if path.suffix == '.html' else 'written'}: {path}" for path in paths]


def assigned(key: str, path: Path) -> str:
    """`key=path` as one types it, with the quotes that the shell and Hydra need."""
    text = str(path)
    if _PLAIN.fullmatch(text):
        return f"{key}={text}"
    if not set(text) & set("\"'$`\\!"):
        return f"\"{key}='{text}'\""
    escaped = re.sub(r"(\\*)(\'|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text)
    return shlex.quote(f"{key}='{escaped}'")


def params(number: float) -> str:
    return f"{number:,.0f} params"


def flops(number: float) -> str:
    """`3.2 MFLOP`: three digits and the unit that fits."""
    power = 0
    # the rounded number decides: 999,999 is 1 MFLOP, not 1e+03 kFLOP
    while abs(float(f"{number / 1000**power:.3g}")) >= 1000 and power < len(_UNITS) - 1:
        power += 1
    return f"{number / 1000**power:.3g} {_UNITS[power]}FLOP"


def seconds(number: float) -> str:
    """`0.42 s`, `12 s`, `1 m 12 s`, `2 h 05 m` or `3 d 04 h`."""
    if not math.isfinite(number):
        return "? s"
    if number < 0.005:
        return "0 s"
    if number < 9.95:
        return f"{number:.2g} s"
    whole = round(number)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    minutes = round(number / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} m"
    hours = round(number / 3600)
    return f"{hours // 24} d {hours % 24:02d} h"


def metric(value: float | None) -> str:
    """Four decimals where they mean something, `–` where there is no value."""
    if value is None:
        return MISSING
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4f}"
    return f"{value:.3e}"


def ratio(before: float, after: float) -> str:
    if before <= 0:
        return f"×{MISSING}"
    times = after / before
    return f"×{times:.2f}" if times < 100 else f"×{times:,.0f}"


def one_line(text: str) -> str:
    """Free text with no line ends, escapes or other control characters."""
    return "".join(c if c.isprintable() else " " for c in text).strip()


def encodable(text: str, encoding: str) -> str:
    """The text as a stream of this encoding can hold it."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_ASCII).encode(encoding, "replace").decode(encoding)
    return text
