"""How much room saliency maps take: those unused the longest make place for new ones.

Maps of models, images and versions that are gone go first. A map that was made or looked at within
the last hour stays, and one that a job is about: the limit is broken sooner than that. What else
lies in the folder is nobody's but its owner's, and stays.

A map is taken away facts first, under another name: from then on nobody is told of it. A reader
notes its use before it reads the facts, so that either it finds none, or its use is seen here and
the facts are put back. Killed in between, pictures without facts are left; nobody is told of them
either, and the next sweep takes them.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from cnsapp.bootstrap import App
from cnsapp.jobs.states import ACTIVE
from cnsapp.services import map_files
from cnsapp.services.map_files import FOLDER, MAP_VERSION, PICTURES, picture_path
from db.models import Image, Job, Model
from db.queries import chunks
from db.session import Store

FRESH = 3600.0  # seconds since somebody looked: the page may be open, and ask for more of it
ROOM = 0.9  # of the limit is left filled, so that not every new map removes one
STEP = 0.05  # of the limit is written until the folder is looked through again
FACTS = ".json"
_ENDINGS = (*sorted(PICTURES.values(), key=len, reverse=True), FACTS)
_MAP = re.compile(r"v(\d{1,6})-([0-9a-f]{16})-([0-9a-f]{64})-[0-9a-f]{24}")
_OLD_MAP = re.compile(r"[0-9a-f]{40}")  # as versions before 4 named them
_OF_MODEL = re.compile(r"model-([0-9a-f]{40})-v(\d{1,6})-[a-z0-9_-]{1,60}\.json")
_HALF = re.compile(r"\.(.+)\.\d{1,10}\.(?:partial|going)")

log = logging.getLogger(__name__)
_written: dict[Path, int] = {}  # bytes since a data folder was looked through
_counting, _sweeping = threading.Lock(), threading.Lock()


@dataclass
class _Map:
    """The files of a map: when it was used last, and what they take together."""

    key: str
    used: float = 0.0  # of a map without facts: when its newest picture was written
    n_bytes: int = 0
    endings: set[str] = field(default_factory=set)

    @property
    def named(self) -> re.Match[str] | None:
        """Version, model and image; None for a map of a version before."""
        return _MAP.fullmatch(self.key)


def note_made(app: App, key: str) -> None:
    """Count a map that was just made, and make room where there may be too little."""
    store, most = app.store, app.settings.max_map_cache_bytes
    size = sum(_size(picture_path(store, key, kind)) for kind in PICTURES)
    with _counting:
        written = _written.get(store.root, most) + size  # at first nobody knows what is there
        _written[store.root] = written
    if most and written > STEP * most:
        try:
            make_room(app)
        except (OSError, SQLAlchemyError):  # the map is made all the same
            log.warning("no room could be made for saliency maps", exc_info=True)


def make_room(app: App) -> int:
    """Remove the maps that are not needed any more; return how many, and other left-overs."""
    with _sweeping:
        with _counting:
            _written[app.store.root] = 0
        return _sweep(app.store, app.settings.max_map_cache_bytes)


def _sweep(store: Store, most: int) -> int:
    folder, oldest = store.path(FOLDER), time.time() - FRESH
    maps, beside = _look(folder)
    wanted, known = _wanted(store), _known(store, maps)
    removed = 0
    for path in beside:
        if _is_left(path, known) and max(_times(path)) < oldest:
            removed += _unlink(path)
    stays: list[_Map] = []
    for one in maps:
        is_left = FACTS not in one.endings or not _is_known(one, known)
        if is_left and one.used < oldest and one.key not in wanted:
            removed += _drop(folder, one.key, oldest)
        else:
            stays.append(one)
    total = sum(one.n_bytes for one in stays)
    if not most or total <= (1 - STEP) * most:
        return removed
    for one in sorted(stays, key=lambda one: one.used):
        if total <= ROOM * most or one.used >= oldest:
            break  # all that follow were looked at later
        if one.key not in wanted and _drop(folder, one.key, oldest):
            total -= one.n_bytes
            removed += 1
    return removed


def _look(folder: Path) -> tuple[list[_Map], list[Path]]:
    """Return the maps of a folder, and the files of ours that are no map's."""
    maps, beside = dict[str, _Map](), list[Path]()
    for entry in _files(folder):
        key, ending = _parted(entry.name)
        if key:
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:
                continue  # it went meanwhile
            one = maps.setdefault(key, _Map(key))
            one.n_bytes += found.st_size
            one.endings.add(ending)
            if ending == FACTS:
                one.used = found.st_mtime
            elif FACTS not in one.endings:
                one.used = max(one.used, found.st_mtime)
        elif _OF_MODEL.fullmatch(entry.name) or _is_half(entry.name):
            beside.append(folder / entry.name)
    return list(maps.values()), beside


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                yield entry


def _parted(name: str) -> tuple[str, str]:
    """Return key and ending of a map's file; the key is empty when it is none."""
    for ending in _ENDINGS:
        key = name.removesuffix(ending)
        if key != name and (_MAP.fullmatch(key) or _OLD_MAP.fullmatch(key)):
            return key, ending
    return "", ""


def _is_half(name: str) -> bool:
    """Say whether a file of ours was being written, or taken away, under this name."""
    half = _HALF.fullmatch(name)
    return half is not None and bool(_parted(half[1])[0] or _OF_MODEL.fullmatch(half[1]))


@dataclass(frozen=True)
class _Known:
    """The checksums of the models and images that the database has."""

    models: set[str]
    images: set[str]

    def has_model(self, start: str) -> bool:
        return any(model.startswith(start) for model in self.models)


def _known(store: Store, maps: list[_Map]) -> _Known:
    shas = sorted({named[3] for one in maps if (named := one.named)})
    images: set[str] = set()
    with store.reading() as session:
        models = set(session.scalars(select(Model.sha256).distinct()))
        for part in chunks(shas):
            images.update(session.scalars(select(Image.sha256).where(Image.sha256.in_(part))))
    return _Known(models, images)


def _wanted(store: Store) -> set[str]:
    """Return the maps that jobs are about to make, to check or to show."""
    wanted: set[str] = set()
    with store.reading() as session:
        of_maps = Job.kind.in_(("explain", "explain_many")), Job.state.in_(ACTIVE)
        for payload in session.scalars(select(Job.payload).where(*of_maps)):
            wanted.add(str(payload.get("key")))
            wanted.update(str(wish[3]) for wish in payload.get("maps", ()))
    return wanted


def _is_known(one: _Map, known: _Known) -> bool:
    named = one.named
    return (
        named is not None
        and int(named[1]) == MAP_VERSION
        and named[3] in known.images
        and known.has_model(named[2])
    )


def _is_left(path: Path, known: _Known) -> bool:
    """Say whether a file beside the maps is of a model or version that is gone, or half a file."""
    of_model = _OF_MODEL.fullmatch(path.name)
    if of_model is None:
        return True
    return int(of_model[2]) != MAP_VERSION or not known.has_model(of_model[1])


def _drop(folder: Path, key: str, oldest: float) -> bool:
    """Take a map away, unless somebody looked at it or made it anew since `oldest`."""
    facts, going = folder / f"{key}{FACTS}", folder / f".{key}{FACTS}.{os.getpid()}.going"
    with map_files.writing:
        try:
            os.replace(facts, going)  # from here on nobody is told of this map
            if _times(going)[0] >= oldest:
                os.replace(going, facts)
                return False
        except FileNotFoundError:
            pass  # pictures without facts
        except OSError:
            return False  # somebody reads it (Windows), or the disk may not be written
        for ending in PICTURES.values():
            picture = folder / f"{key}{ending}"
            if _times(picture)[0] < oldest:
                _unlink(picture)
        _unlink(going)
    return True


def _times(path: Path) -> tuple[float, float]:
    """Return when a file was written, and when it got its name; it counts as new if it is gone."""
    try:
        found = path.stat()
    except OSError:
        return time.time(), time.time()
    return found.st_mtime, found.st_ctime


def _unlink(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False  # gone, or read by somebody: the next sweep looks again
    return True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
