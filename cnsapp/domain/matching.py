"""Which file a table means by a name that was written by hand, by Excel or on another system."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence


def plain_form(name: str) -> str:
    r"""Return what two spellings of one path share: composed Unicode, "/" between its parts.

    Examples
    --------
    >>> plain_form(".\\liver\\a.png ")
    'liver/a.png'
    """
    return unicodedata.normalize("NFC", name.strip().replace("\\", "/").removeprefix("./"))


def base_form(name: str) -> str:
    """Return the last part of a path in its plain form.

    Examples
    --------
    >>> base_form("liver/a.png")
    'a.png'
    """
    return plain_form(name).rsplit("/", 1)[-1]


def match_names(written: Iterable[str], names: Sequence[str]) -> dict[str, str]:
    r"""Return which of `names` each written name means; names that mean none or several are absent.

    A name that is there letter by letter means that file. Others may differ in the Unicode form,
    the slashes and outer blanks, or give the last part of the path alone; they never mean a file
    that is written letter by letter elsewhere in the table, so that two files whose names differ
    in the Unicode form only keep a row each.

    Parameters
    ----------
    written
        The names in the table.
    names
        The files, each path once.

    Examples
    --------
    >>> match_names(["a.png", "B\\b.png", "c.png"], ["x/a.png", "B/b.png", "1/c.png", "2/c.png"])
    {'a.png': 'x/a.png', 'B\\b.png': 'B/b.png'}
    """
    asked = list(dict.fromkeys(written))
    known = set(names)
    exact = {name for name in asked if name in known}
    found = {}
    by_plain = by_base = None
    for name in asked:
        if name in exact:
            found[name] = name
            continue
        if by_plain is None or by_base is None:
            free = [other for other in names if other not in exact]
            by_plain, by_base = _only(free, plain_form), _only(free, base_form)
        meant = by_plain.get(plain_form(name)) or by_base.get(plain_form(name))
        if meant is not None:
            found[name] = meant
    return found


def _only(names: Iterable[str], form: Callable[[str], str]) -> dict[str, str]:
    """Return the names by their form, without the forms that several names share."""
    seen: dict[str, str] = {}
    double: set[str] = set()
    for name in names:
        key = form(name)
        if seen.setdefault(key, name) != name:
            double.add(key)
    return {key: name for key, name in seen.items() if key not in double}
