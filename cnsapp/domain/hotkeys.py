"""Keys of classes: one key, or two pressed one after the other, that nothing else listens to."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from cnsapp.domain.names import name_key
from cnsapp.domain.schemes import HOTKEYS, ClassSpec
from cnsapp.errors import InvalidInputError

RESERVED: Mapping[str, str] = {
    "c": "the page underneath clears its memory with it",
    "r": "the page is drawn again with it",
    "u": "it undoes the last label",
    "s": "it skips the image",
    "x": "it marks the image as unsure",
    "z": "it shows the picture pixel for pixel",
    "a": "it accepts the suggestion",
    "i": "it inverts the selection",
    "n": "it writes a note",
    "m": "it puts on tags",
    "h": "it shows the list of keys",
    "/": "it finds a class by its name",
    "?": "it shows the list of keys",
    "+": "it makes the pictures larger",
    "-": "it makes the pictures smaller",
    "=": "it makes the pictures larger",
    " ": "it selects the image",
    "enter": "it opens the image",
}
DIGITS = "123456789"
LETTERS = tuple(key for key in "abcdefghijklmnopqrstuvwxyz" if key not in RESERVED)
SECOND_KEYS = (*DIGITS, *LETTERS)
MOST_SINGLE = 10  # classes that get one key each: what a hand finds without looking


def parse_chord(text: str) -> tuple[str, ...]:
    """Return the one or two keys that a text names, in small letters.

    `d`, `D`, `d1`, `d 1`, `d,1`, `d-1` and `d then 1` are understood.

    Raises
    ------
    InvalidInputError
        There is no key or there are more than two, one is neither a letter nor a digit, or one is
        reserved; the sentence says which and by whom.
    """
    if text.casefold() in RESERVED:
        raise _reserved(text.casefold())
    parts = _parts(text)
    if not parts:
        raise InvalidInputError("No key is given.", "", "Type one key, or two such as d1.")
    if len(parts) > 2:
        raise InvalidInputError(
            f"“{_shown(text)}” is {len(parts)} keys.",
            "A class has one key, or two that are pressed one after the other.",
            "Choose one or two keys, such as d or d1.",
        )
    for key in parts:
        if key in RESERVED:
            raise _reserved(key)
        if not _is_letter_or_digit(key):
            raise InvalidInputError(
                f"“{_shown(key)}” cannot be the key of a class.",
                "Only letters and the digits 0 to 9 are the same on every keyboard.",
                "Choose a letter or a digit.",
            )
    return tuple(parts)


def clean_hotkey(text: str) -> str:
    """Return a key or chord as it is stored: `d` or `d1`; raise like `parse_chord`."""
    return "".join(parse_chord(text))


def check_hotkeys(hotkeys: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return the keys of all classes of a project as they are stored.

    Two classes cannot share a key or chord, and the first key of a chord cannot be the single key
    of another class: a press could not be told to be the one or the beginning of the other.

    Parameters
    ----------
    hotkeys
        Key of each class by its name; None or an empty text for a class without one.

    Raises
    ------
    InvalidInputError
        A key cannot be used (names its class), or two classes conflict (names both).
    """
    clean: dict[str, str | None] = {}
    for name, text in hotkeys.items():
        try:
            clean[name] = clean_hotkey(text) if text else None
        except InvalidInputError as error:
            what = f"The key of “{name}” cannot be used: {error.what}"
            raise InvalidInputError(what, error.why, error.remedy) from None
    found = find_conflict(clean)
    if found is not None:
        raise _conflict(*found, clean)
    return clean


def find_conflict(hotkeys: Mapping[str, str | None]) -> tuple[str, str] | None:
    """Return the first two classes whose keys exclude each other, or None.

    Parameters
    ----------
    hotkeys
        Keys as stored (see `clean_hotkey`), by class name.
    """
    holder: dict[str, str] = {}  # whole key or chord -> class
    leader: dict[str, str] = {}  # first key of a chord -> class
    for name, key in hotkeys.items():
        if not key:
            continue
        other = holder.get(key) or holder.get(key[0]) or (leader.get(key) if len(key) == 1 else "")
        if other:
            return other, name
        holder[key] = name
        if len(key) > 1:
            leader.setdefault(key[0], name)
    return None


def suggest_hotkeys(classes: Sequence[ClassSpec]) -> list[str | None]:
    """Return keys for classes: single ones while there are enough, else two one after the other.

    More than ten classes with parents: the first key is the system. More classes than keys: the
    first key counts in nines, as in 11 to 19, 21 to 29.
    """
    with_parent = any(spec.parent for spec in classes)
    if len(classes) > MOST_SINGLE and with_parent:
        return suggest_chords(classes)
    if len(classes) > len(HOTKEYS):
        nines = [divmod(i, len(DIGITS)) for i in range(len(classes))]
        return [HOTKEYS[a] + DIGITS[b] if a < len(HOTKEYS) else None for a, b in nines]
    return [HOTKEYS[i] if i < len(HOTKEYS) else None for i in range(len(classes))]


def suggest_chords(classes: Sequence[ClassSpec]) -> list[str | None]:
    """Return a chord for each class: first key its system (parent), second key the organ in it.

    A system gets a letter of its own name, the first that is free, else any free letter, and none
    when the letters have run out. Organs are counted 1 to 9, then by letters. A class without
    parent gets a single key, a digit while there are some, that begins no chord.

    Parameters
    ----------
    classes
        Names and parents; their order decides.

    Returns
    -------
    One key, chord or None (beyond the keys there are) a class, in their order; free of conflicts.
    """
    parents = {name_key(spec.parent): spec.parent for spec in classes if spec.parent}
    first = _first_keys(parents)
    singles = iter([*DIGITS, "0", *(k for k in LETTERS if k not in first.values())])
    seconds = {parent: iter(SECOND_KEYS) for parent in first}
    keys: list[str | None] = []
    for spec in classes:
        if not spec.parent:
            keys.append(next(singles, None))
            continue
        parent = name_key(spec.parent)
        second = next(seconds[parent], None) if parent in first else None
        keys.append(first[parent] + second if second else None)
    return keys


def _first_keys(parents: Mapping[str, str]) -> dict[str, str]:
    """Give each system a letter: its name's first where two do not want the same one."""
    first: dict[str, str] = {}
    for parent in parents:
        wanted = (*(ch for ch in parent if ch in LETTERS), *LETTERS)
        free = next((key for key in wanted if key not in first.values()), None)
        if free is not None:
            first[parent] = free
    return first


def _parts(text: str) -> list[str]:
    """Split a text into its keys; blanks, commas and a lone “then” or hyphen only separate."""
    shown = unicodedata.normalize("NFC", text).casefold().replace(" then ", " ").strip()
    if len(shown) > 2:
        for mark in (",", "-"):
            shown = shown.replace(mark, " ")
    return [unicodedata.normalize("NFC", ch) for ch in "".join(shown.split())]


def _is_letter_or_digit(key: str) -> bool:
    return key in "0123456789" or (len(key) == 1 and key.isalpha())


def _shown(text: str) -> str:
    return {" ": "the space bar", "enter": "Enter"}.get(text, text)


def _reserved(key: str) -> InvalidInputError:
    return InvalidInputError(
        f"“{_shown(key)}” is reserved: {RESERVED[key]}.",
        "One press would do two things.",
        f"Choose another key, such as {', '.join(HOTKEYS[:3])} or {HOTKEYS[10]}.",
    )


def _conflict(one: str, other: str, keys: Mapping[str, str | None]) -> InvalidInputError:
    a, b = keys[one], keys[other]
    if a == b:
        what = f"“{one}” and “{other}” both have the key {a}."
        return InvalidInputError(what, "A press would mean either.", "Give one another key.")
    return InvalidInputError(
        f"“{one}” has the key {a} and “{other}” the key {b}: one begins the other.",
        "After the first press nobody could say which of the two is meant.",
        "Give one of them a key that begins with another letter or digit.",
    )


def free_keys(hotkeys: Iterable[str | None]) -> list[str]:
    """Return the default keys, in order, that conflict with none of those given."""
    taken = {key[0] for key in hotkeys if key}
    return [key for key in HOTKEYS if key not in taken]
