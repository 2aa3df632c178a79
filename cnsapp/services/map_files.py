"""The files of saliency maps: their names, what is noted beside them, and whether they are whole.

A map is `KEY.png` (transparent, in colour), `KEY-levels.png` (the same as gray levels, for other
colours) and `KEY.json` (its facts). The facts are written last and say how long the pictures are
and what they add up to, so that a torn file is noticed and the map made again. When they were
written last is when the map was used last: `map_room` takes those away that nobody looks at.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnsapp.domain.maps import settings_sign
from db.session import Store

MAP_VERSION = 4  # raise it when maps are drawn otherwise, so that old ones are not shown
FOLDER = "saliency"
PICTURES = {"png": ".png", "levels": "-levels.png"}
TOUCHED = 60.0  # seconds: a use is noted no more often
writing = threading.RLock()  # held while the files of a map are written, or taken away


def map_key(
    model_sha256: str,
    image_sha256: str,
    method: str,
    target_class: int | None,
    settings: Mapping[str, Any] | None = None,
    reading: str = "",
) -> str:
    """Return the name of a map's files: the same for the same model, bytes, look and question.

    It tells version, model and image, so that `map_room` need not open a file to know them.

    Parameters
    ----------
    target_class
        The class as the model names it; None for the predicted one.
    settings
        All settings of the method.
    reading
        Sign of the rule by which the image is read (`reading_sign`).
    """
    target = "predicted" if target_class is None else str(target_class)
    parts = (
        str(MAP_VERSION), model_sha256, image_sha256, method, target,
        settings_sign(settings or {}), reading,
    )  # fmt: skip
    question = hashlib.sha256("|".join(parts).encode()).hexdigest()[:24]
    return f"v{MAP_VERSION}-{model_sha256[:16]}-{image_sha256}-{question}"


def reading_sign(rule: Mapping[str, Any]) -> str:
    """Return a short sign of a reading rule (its `as_json`)."""
    return hashlib.sha256(settings_sign(rule).encode()).hexdigest()[:16]


def picture_path(store: Store, key: str, kind: str = "png") -> Path:
    """Return where a picture of a map lies: `png` or `levels`."""
    return store.path(FOLDER, key + PICTURES[kind])


def note_use(store: Store, key: str) -> None:
    """Remember that somebody looks at a map; costs nothing to speak of."""
    path = store.path(FOLDER, f"{key}.json")
    try:
        if time.time() - path.stat().st_mtime > TOUCHED:
            os.utime(path)
    except OSError:
        return  # it is gone, or its disk may not be written: then it counts as not looked at


def read_facts(store: Store, key: str) -> dict[str, Any] | None:
    """Return what is noted of a finished map, or None while it is not there whole.

    `faithfulness` is None until it was measured; `randomisation` is that of the model and method,
    or None likewise.
    """
    note_use(store, key)  # first: from here on nobody takes it away
    facts = _read(store.path(FOLDER, f"{key}.json"))
    if facts is None or facts.get("key") != key or facts.get("version") != MAP_VERSION:
        return None
    noted = facts.get("pictures")
    if noted != _sums(store, key) or None in noted.values():
        return None
    model, method = str(facts.get("model_sha256", "")), str(facts.get("method", ""))
    return facts | {"randomisation": read_randomisation(store, model, method)}


def write_facts(store: Store, key: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Note the facts of a map whose pictures are written; return them as they are noted."""
    noted = {k: v for k, v in facts.items() if k != "randomisation"}
    noted |= {"key": key, "version": MAP_VERSION, "pictures": _sums(store, key)}
    _write(store.path(FOLDER, f"{key}.json"), noted)
    return noted


def read_randomisation(store: Store, model_sha256: str, method: str) -> dict[str, Any] | None:
    """Return how maps of a model and method differ from those of random weights, if it is known."""
    return _read(_about(store, model_sha256, f"random-{method}"))


def write_randomisation(
    store: Store, model_sha256: str, method: str, found: Mapping[str, Any]
) -> None:
    """Note the same; it holds for every image."""
    _write(_about(store, model_sha256, f"random-{method}"), found)


def read_look(store: Store, model_sha256: str) -> dict[str, Any] | None:
    """Return what the worker saw in a model's network, or None before its first map."""
    return _read(_about(store, model_sha256, "network"))


def write_look(store: Store, model_sha256: str, found: Mapping[str, Any]) -> None:
    """Note the same, once."""
    path = _about(store, model_sha256, "network")
    if not path.is_file():
        _write(path, found)


def _about(store: Store, model_sha256: str, what: str) -> Path:
    return store.path(FOLDER, f"model-{model_sha256[:40]}-v{MAP_VERSION}-{what}.json")


def _sums(store: Store, key: str) -> dict[str, list[int] | None]:
    return {kind: _sum_of(picture_path(store, key, kind)) for kind in PICTURES}


def _sum_of(path: Path) -> list[int] | None:
    """Return length and checksum of a file, or None when it is not there."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return [len(content), zlib.crc32(content)]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write(target: Path, content: Mapping[str, Any]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    with writing:  # two jobs of one worker would share the half-written file
        partial.write_text(json.dumps(dict(content), ensure_ascii=False), encoding="utf-8")
        os.replace(partial, target)
