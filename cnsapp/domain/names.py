"""Names that people type: when two of them are the same name."""

from __future__ import annotations

import unicodedata


def clean_name(name: str) -> str:
    """Return the name as it is stored: composed Unicode, single inner blanks, none outside."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def name_key(name: str) -> str:
    """Return what two names share when a reader would call them the same (case, blanks, form)."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())
