"""TIFF files: Pillow for ordinary 8-bit pictures, tifffile with imagecodecs for all others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging import pillow_files
from cnsapp.imaging.color import upright
from cnsapp.imaging.decoded import (
    Decoded,
    Reading,
    pages_note,
    projected,
    refusal,
    wanted_pages,
)
from cnsapp.imaging.limits import LimitError, Limits
from cnsapp.imaging.mixing import mix
from cnsapp.imaging.rule import Channel, ReadingRule
from cnsapp.imaging.tiff_bands import Plane
from cnsapp.imaging.tiff_colors import convert, depth, inverted, orientation_of, widened
from cnsapp.imaging.tiff_pages import in_words, whole
from cnsapp.imaging.tiff_stack import Stack, check_page, find_stack, open_tiff
from cnsapp.imaging.window import sample_kind

BITS, COMPRESSION, SAMPLE_FORMAT = 258, 259, 339
UNSIGNED = 1
# libtiff may lack these (JPEG 2000, LERC, Zstandard, WebP) and complains on the terminal
RARE_COMPRESSIONS = (33003, 33005, 34712, 34887, 50000, 50001)
PLAIN_MODES = ("1", "L", "P", "RGB", "RGBA", "RGBX", "CMYK", "LAB", "YCbCr", "LA", "PA")


def decode(path: Path, reading: Reading) -> Decoded:
    """Decode what the rule shows of a TIFF: one page or plane, their maximum, or mixed channels."""
    with ExitStack() as opened:
        try:
            stack = find_stack(opened.enter_context(open_tiff(path)), reading.limits)
        except LimitError:
            raise
        except Exception as error:  # any complaint of the decoder: the other one may know better
            return _by_pillow_alone(path, reading, error)
        if stack.is_plain:
            return _decode_pages(path, stack, reading)
        try:
            return _decode_stack(path, stack, reading)
        except UnreadableImageError:
            raise
        except Exception as error:  # codecs raise many kinds
            raise in_words(error) from error


@contextmanager
def opened_stack(path: Path, limits: Limits) -> Iterator[Stack]:
    """Open a TIFF as its planes; errors as `read_image`."""
    with open_tiff(path) as tiff:
        yield find_stack(tiff, limits)


def gray(stack: Stack, samples: NDArray[Any]) -> NDArray[Any]:
    """Return one channel's (H, W) samples upright, white at the top of their range."""
    page = stack.page
    samples = upright(widened(samples, page), orientation_of(page, []))
    if getattr(page.photometric, "name", "") == "MINISWHITE":
        samples = inverted(samples, depth(page))
    return samples


def chosen_channels(rule: ReadingRule, channels: int, notes: list[str]) -> list[Channel]:
    """Return the rule's channels that a file has; a note names those that it lacks.

    Raises
    ------
    UnreadableImageError
        It has none of them.
    """
    found = [channel for channel in rule.channels if channel.index < channels]
    lacking = [str(channel.index + 1) for channel in rule.channels if channel.index >= channels]
    if not found:
        raise UnreadableImageError(
            f"The file has {channels} channels, and none of those that the project shows "
            f"({', '.join(lacking)}).",
            "",
            "Choose other channels in the project's reading rule, or leave the file out.",
        )
    if lacking:
        notes.append(f"The file has no channel {', '.join(lacking)}: nothing is shown of it.")
    return found


def _decode_stack(path: Path, stack: Stack, reading: Reading) -> Decoded:
    rule, page = reading.rule, stack.page
    planes = wanted_pages(rule, stack.planes)
    notes = pages_note(rule, stack.planes, "planes" if stack.lead else "pages")
    if stack.times > 1:
        notes.append(f"The file holds {stack.times} times; the first is shown.")
    if stack.channels > 1 and rule.channels:
        chosen = chosen_channels(rule, stack.channels, notes)
        by_index: dict[int, list[Channel]] = {}
        for channel in chosen:
            by_index.setdefault(channel.index, []).append(channel)
        found = (
            (channel, gray(stack, samples))
            for index, samples in stack.grays(list(by_index), planes)
            for channel in by_index[index]
        )
        mixed = mix(found, rule, depth(page), notes, reading.strict)
        _note_orientation(page, notes)
        decoded = Decoded(mixed, "TIFF", "gray", depth(page), stack.planes, notes)
    elif stack.channels > 1:
        notes.append(f"The file has {stack.channels} channels; the first is shown in gray.")
        single = _large_plane(path, stack, reading, planes) if stack.samples == 1 else None
        if single is not None:
            decoded = single.decode()
        else:
            samples = next(stack.grays([0], planes))[1]
            decoded = convert(page, samples, rule, one_sample=True)
        decoded.notes[:0] = notes
    else:
        single = _large_plane(path, stack, reading, planes)
        parts = (convert(page, stack.raw(0, plane), rule) for plane in planes)
        decoded = projected(parts) if single is None else single.decode()
        decoded.notes[:0] = notes
    return _with_facts(decoded, stack)


def _large_plane(path: Path, stack: Stack, reading: Reading, planes: range) -> Plane | None:
    """Return the one plane that is shown where it can and should be read band by band."""
    if len(planes) > 1:
        return None
    plane = Plane(path, stack, reading, plane=planes[0])
    return plane if plane.is_large_and_plain else None


def _with_facts(decoded: Decoded, stack: Stack) -> Decoded:
    decoded.pages, decoded.channels = stack.planes, stack.channels
    decoded.um_per_px = stack.meta.um_per_px
    decoded.kind = decoded.kind or _kind(stack.page)
    return decoded


def _kind(page: Any) -> str:
    """Return the kind of samples a page holds: 8 bits where it becomes a finished picture."""
    name = getattr(page.photometric, "name", "")
    if page.dtype is None or page.dtype == bool or name in ("PALETTE", "SEPARATED"):
        return "uint8"
    return sample_kind(page.dtype)


def _decode_pages(path: Path, stack: Stack, reading: Reading) -> Decoded:
    numbers = wanted_pages(reading.rule, len(stack.pages))
    with ExitStack() as opened:
        try:
            image: Image.Image | None = opened.enter_context(
                pillow_files.open_header(path, "TIFF", reading.limits)
            )
        except LimitError:
            raise
        except Exception:  # tifffile may know better
            image = None
        first = _is_plain(image) if image is not None else False

        def read(number: int) -> Decoded:
            return _read_page(image, stack.tiff, stack.pages[number], reading)

        decoded = _by_bands(path, stack, reading, numbers) or projected(map(read, numbers))
        decoded.notes[:0] = pages_note(reading.rule, len(stack.pages))
        if numbers[0] > 0:
            decoded.kind = "uint8" if first else _kind(stack.page)
            decoded.transparent = _is_transparent(stack.page)
    return _with_facts(decoded, stack)


def _by_bands(path: Path, stack: Stack, reading: Reading, numbers: range) -> Decoded | None:
    """Return a large plain page; None where there is none, or Pillow may know better."""
    try:
        plane = _large_plane(path, stack, reading, numbers)
        if plane is None:
            return None
        check_page(plane.page, reading.limits)
        return plane.decode()
    except (UnreadableImageError, MemoryError):
        raise
    except Exception:  # any complaint of the decoder
        return None


def _read_page(image: Image.Image | None, tiff: Any, number: int, reading: Reading) -> Decoded:
    if image is not None:
        try:
            if number:
                image.seek(number)
                reading.limits.check_size(*image.size)
            if _is_plain(image):
                return pillow_files.finish(image, "TIFF", _bits(image), reading.rule)
        except LimitError:
            raise
        except Exception as error:  # any complaint of the decoder: the other one may know better
            if "truncat" in str(error).lower():
                raise refusal(error) from error
    try:
        page = tiff.pages[number]
        check_page(page, reading.limits)
        return convert(page, whole(page), reading.rule)
    except UnreadableImageError:
        raise
    except Exception as error:  # codecs raise many kinds
        raise in_words(error) from error


def _by_pillow_alone(path: Path, reading: Reading, first: Exception) -> Decoded:
    with pillow_files.open_header(path, "TIFF", reading.limits) as image:
        if not _is_plain(image):
            raise refusal(first)
        pages = pillow_files.count_frames(image, reading.limits)
        return pillow_files.read_frames(image, "TIFF", _bits(image), pages, "pages", reading)


def _is_plain(image: Image.Image) -> bool:
    tags: Any = getattr(image, "tag_v2", {})
    formats = _as_tuple(tags.get(SAMPLE_FORMAT, UNSIGNED))
    return (
        image.mode in PLAIN_MODES
        and tags.get(COMPRESSION) not in RARE_COMPRESSIONS
        and _bits(image) <= 8
        and all(fmt in (UNSIGNED, 4) for fmt in formats)
    )


def _bits(image: Image.Image) -> int:
    tags: Any = getattr(image, "tag_v2", {})
    return max(_as_tuple(tags.get(BITS, 1)))


def _as_tuple(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple) else (int(value),)


def _is_transparent(page: Any) -> bool:
    return any(int(value) in (1, 2) for value in page.extrasamples)


def _note_orientation(page: Any, notes: list[str]) -> None:
    orientation_of(page, notes)
