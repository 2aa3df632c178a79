"""How images of a project would look by another rule, before anything is changed."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from PIL import Image as Picture

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError
from cnsapp.imaging import isolated
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.rule import ReadingRule
from cnsapp.imaging.rule_changes import SAMPLE_WORDS, FileKind
from cnsapp.services.images import ImageDetail, get_image
from cnsapp.services.import_source import limits_of
from cnsapp.services.reading import get_reading, has_choices
from cnsapp.services.reading_levels import pick_images

SIDE = 256  # pixels, as the thumbnails that stand beside them
SHOWN = 6
KEPT = 200  # small pictures, some 10 kB each


@dataclass(frozen=True)
class Look:
    """One image as it is and as it would be.

    Parameters
    ----------
    picture
        JPEG by the other rule; None while it is being read, and when it cannot be.
    reason
        Why it cannot be read by that rule; "" otherwise.
    kind
        What is special about the file: “16-bit, 3 channels”.
    """

    image: ImageDetail
    kind: str
    picture: bytes | None
    reason: str = ""

    @property
    def is_pending(self) -> bool:
        """Whether it is still being read."""
        return self.picture is None and not self.reason


def preview(app: App, *, project_id: int, rule: ReadingRule, patience: float = 1.5) -> list[Look]:
    """Return up to 6 images that the rule touches, as they are and as they would be.

    Parameters
    ----------
    patience
        Seconds to wait for pictures that were not asked for before; those that take longer are
        read on in the background, and stand in the answer of a later call.

    Raises
    ------
    InvalidInputError
        The rule cannot be used.
    """
    rule.checked()
    reading = get_reading(app.store, project_id=project_id)
    touched = [kind for kind in reading.kinds if kind.differs(reading.rule, rule)]
    picked = pick_images(app.store, project_id, touched, SHOWN)
    limits = limits_of(app)
    asked = []
    for image_id, path in picked:
        image = get_image(app.store, image_id=image_id)
        sign = rule.seen(image.facts) if "samples" in image.facts else str(hash(rule))
        asked.append((image, _ask((image.sha256, sign), path, rule, limits)))
    _drop_all_but({future for _, future in asked})
    wait([future for _, future in asked], timeout=patience)
    return [_look(image, future) for image, future in asked]


def examples(app: App, *, project_id: int) -> list[Look]:
    """Return up to 6 images that the rule has a say in, as they are."""
    kinds = get_reading(app.store, project_id=project_id).kinds
    special = [kind for kind in kinds if has_choices(kind.facts)]
    picked = pick_images(app.store, project_id, special, SHOWN)
    images = [get_image(app.store, image_id=image_id) for image_id, _ in picked]
    return [Look(image, kind_words(FileKind(image.facts)), None) for image in images]


def _look(image: ImageDetail, future: Future[bytes]) -> Look:
    kind = kind_words(FileKind(image.facts))
    if not future.done():
        return Look(image, kind, None)
    try:
        return Look(image, kind, future.result())
    except CancelledError:  # somebody else's preview was in a hurry: it is asked for again
        return Look(image, kind, None)
    except CnsError as error:
        return Look(image, kind, None, error.what)
    except OSError as error:
        return Look(image, kind, None, f"The file cannot be read: {error.strerror or error}.")


def kind_words(kind: FileKind) -> str:
    """Return what is special about a file, in a few words."""
    facts = kind.facts
    samples = str(facts.get("samples", "uint8"))
    depth = SAMPLE_WORDS.get(samples, "") if kind.is_known else f"{facts.get('bits', 8)}-bit"
    parts = [depth] if kind.is_deep else []
    if int(facts.get("channels", 1)) > 1:
        parts.append(f"{facts['channels']} channels")
    if kind.has_pages:
        parts.append(f"{facts['pages']} pages")
    if kind.is_known and kind.has_alpha:
        parts.append("transparent")
    return ", ".join(parts)


_lock = threading.Lock()
_reading = ThreadPoolExecutor(2, "preview")
_kept: OrderedDict[tuple[str, str], Future[bytes]] = OrderedDict()


def _ask(key: tuple[str, str], path: Path, rule: ReadingRule, limits: Limits) -> Future[bytes]:
    with _lock:
        future = _kept.get(key)
        if future is None or future.cancelled():
            future = _kept[key] = _reading.submit(_small_jpeg, path, rule, limits)
        _kept.move_to_end(key)
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
        return future


def _drop_all_but(wanted: set[Future[bytes]]) -> None:
    """Take back what nobody waits for any more: a rule that is being typed changes quickly."""
    with _lock:
        for key, future in list(_kept.items()):
            if future not in wanted and future.cancel():
                del _kept[key]


def _small_jpeg(path: Path, rule: ReadingRule, limits: Limits) -> bytes:
    pixels = isolated.call("small", path, rule=rule, limits=limits, side=SIDE).array
    assert pixels is not None
    made = io.BytesIO()
    Picture.fromarray(pixels).save(made, "JPEG", quality=90, subsampling=0)
    return made.getvalue()
