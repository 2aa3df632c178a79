"""TIFF files: Pillow for ordinary 8-bit pictures, tifffile with imagecodecs for all others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging import pillow_files
from cnsapp.imaging.color import alpha_note, to_rgb, upright
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
from cnsapp.imaging.tiff_stack import Stack, check_page, find_stack, open_tiff, whole
from cnsapp.imaging.window import sample_kind

BITS, COMPRESSION, ORIENTATION, SAMPLE_FORMAT = 258, 259, 274, 339
UNSIGNED = 1
# libtiff may lack these (JPEG 2000, LERC, Zstandard, WebP) and complains on the terminal
RARE_COMPRESSIONS = (33003, 33005, 34712, 34887, 50000, 50001)
PLAIN_MODES = ("1", "L", "P", "RGB", "RGBA", "RGBX", "CMYK", "LAB", "YCbCr", "LA", "PA")
PICTURE_CODECS = (6, 7, 33003, 33005, 33007, 34712, 34892, 50001)  # they give RGB by themselves
NO_PICTURE = ("CIELAB", "ICCLAB", "ITULAB", "LOGLUV")


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
            return _decode_stack(stack, reading)
        except UnreadableImageError:
            raise
        except Exception as error:  # codecs raise many kinds
            raise _in_words(error) from error


@contextmanager
def opened_stack(path: Path, limits: Limits) -> Iterator[Stack]:
    """Open a TIFF as its planes; errors as `read_image`."""
    with open_tiff(path) as tiff:
        yield find_stack(tiff, limits)


def gray(stack: Stack, samples: NDArray[Any]) -> NDArray[Any]:
    """Return one channel's (H, W) samples upright, white at the top of their range."""
    page = stack.page
    samples = upright(_widened(samples, page), _orientation(page, []))
    if getattr(page.photometric, "name", "") == "MINISWHITE":
        samples = _inverted(samples, _depth(page))
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


def _decode_stack(stack: Stack, reading: Reading) -> Decoded:
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
        mixed = mix(found, rule, _depth(page), notes, reading.strict)
        _note_orientation(page, notes)
        decoded = Decoded(mixed, "TIFF", "gray", _depth(page), stack.planes, notes)
    elif stack.channels > 1:
        notes.append(f"The file has {stack.channels} channels; the first is shown in gray.")
        samples = next(stack.grays([0], planes))[1]
        decoded = _convert(page, samples, rule, one_sample=True)
        decoded.notes[:0] = notes
    else:
        parts = (_convert(page, stack.raw(0, plane), rule) for plane in planes)
        decoded = projected(parts)
        decoded.notes[:0] = notes
    return _with_facts(decoded, stack)


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

        decoded = projected(map(read, numbers))
        decoded.notes[:0] = pages_note(reading.rule, len(stack.pages))
        if numbers[0] > 0:
            decoded.kind = "uint8" if first else _kind(stack.page)
            decoded.transparent = _is_transparent(stack.page)
    return _with_facts(decoded, stack)


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
        return _convert(page, whole(page), reading.rule)
    except UnreadableImageError:
        raise
    except Exception as error:  # codecs raise many kinds
        raise _in_words(error) from error


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


def _in_words(error: Exception) -> UnreadableImageError:
    text = str(error)
    if "codec" in text.lower() or "not supported" in text.lower():
        return UnreadableImageError(
            f"The TIFF uses a compression that cannot be decoded here ({text[:120]}).",
            "",
            "Save it as TIFF with LZW compression or none.",
        )
    return refusal(error)


def _convert(
    page: Any, samples: NDArray[Any], rule: ReadingRule, *, one_sample: bool = False
) -> Decoded:
    """Return a page's samples as a picture, upright; `one_sample`: they are one channel of it."""
    photometric = getattr(page.photometric, "name", str(page.photometric))
    notes: list[str] = []
    if samples.dtype.kind == "c":
        raise UnreadableImageError("The TIFF holds complex numbers, which are not a picture.")
    if samples.ndim == 3 and page.axes == "SYX":
        samples = np.moveaxis(samples, 0, -1)
    if samples.ndim not in (2, 3) or page.axes not in ("YX", "YXS", "SYX"):
        raise UnreadableImageError(
            f"The first TIFF page has the axes {page.axes}, not those of a picture.",
            "",
            "Save one plane of it as TIFF or PNG.",
        )
    samples = upright(samples, _orientation(page, notes))
    if photometric != "PALETTE":
        samples = _widened(samples, page)
    alpha = None
    if not one_sample:
        samples, alpha = _split_alpha(page, samples, notes)
    transparent = alpha is not None
    if alpha is not None and alpha.min(initial=1) < 1:
        notes.append(alpha_note(rule.background))
    bits = _depth(page)
    if photometric == "PALETTE":
        samples = np.moveaxis((np.asarray(page.colormap) >> 8).astype(np.uint8)[:, samples], 0, -1)
    elif photometric == "MINISWHITE":
        samples = _inverted(samples, bits)
    elif photometric == "SEPARATED":
        return _from_cmyk(samples, page, notes)
    elif (
        photometric in ("CIELAB", "YCBCR")
        and samples.dtype == np.uint8
        and (samples.ndim == 3 and page.compression not in PICTURE_CODECS)
    ):
        samples = _from_other_colors(samples, photometric, notes)
    elif photometric in NO_PICTURE or (photometric == "YCBCR" and samples.dtype != np.uint8):
        raise UnreadableImageError(f"The TIFF has {bits}-bit {photometric} colours.", "",
                                   "Save it as 8- or 16-bit RGB.")  # fmt: skip
    mode = "gray" if samples.ndim == 2 else "RGB"
    decoded = Decoded(samples, "TIFF", mode, bits, 1, notes, alpha, _profile(page))
    decoded.transparent = transparent
    return _finished(decoded, rule.background) if samples.dtype == np.uint8 else decoded


def _from_other_colors(samples: NDArray[Any], photometric: str, notes: list[str]) -> NDArray[Any]:
    mode = {"CIELAB": "LAB", "YCBCR": "YCbCr"}[photometric]
    size = (samples.shape[1], samples.shape[0])
    data = np.ascontiguousarray(samples[..., :3]).tobytes()
    return np.asarray(to_rgb(Image.frombytes(mode, size, data, "raw", mode), notes))


def _depth(page: Any) -> int:
    return int(np.max(page.bitspersample))


def _widened(samples: NDArray[Any], page: Any) -> NDArray[Any]:
    """Return samples of fewer than 8 bits over the whole range of 8."""
    bits = _depth(page)
    if samples.dtype == bool:
        return samples.astype(np.uint8) * 255
    if samples.dtype == np.uint8 and bits < 8:
        top = 2**bits - 1
        table = (np.arange(256) * 255 // top).clip(0, 255).astype(np.uint8)
        return np.asarray(table[samples])
    return samples


def _is_transparent(page: Any) -> bool:
    return any(int(value) in (1, 2) for value in page.extrasamples)


def _note_orientation(page: Any, notes: list[str]) -> None:
    _orientation(page, notes)


def _finished(decoded: Decoded, background: str) -> Decoded:
    """Bring 8-bit samples to the finished picture, as Pillow's files are."""
    samples, alpha = decoded.samples, decoded.alpha
    image = Image.fromarray(np.ascontiguousarray(samples))
    if alpha is not None:
        image = image.convert("RGBA")
        image.putalpha(Image.fromarray((alpha * 255 + 0.5).astype(np.uint8)))
    if decoded.profile:
        image.info["icc_profile"] = decoded.profile
    decoded.samples, decoded.alpha = np.asarray(to_rgb(image, decoded.notes, background)), None
    return decoded


def _from_cmyk(samples: NDArray[Any], page: Any, notes: list[str]) -> Decoded:
    if samples.dtype == np.uint16:
        samples = (samples >> 8).astype(np.uint8)
        notes.append("16-bit CMYK reduced to 8 bits.")
    if samples.dtype != np.uint8 or samples.ndim != 3 or samples.shape[2] != 4:
        raise UnreadableImageError("The TIFF has separated colours other than CMYK.", "",
                                   "Save it as RGB.")  # fmt: skip
    image = Image.frombytes("CMYK", samples.shape[1::-1], np.ascontiguousarray(samples).tobytes())
    if _profile(page):
        image.info["icc_profile"] = _profile(page)
    bits = int(np.max(page.bitspersample))
    return Decoded(np.asarray(to_rgb(image, notes)), "TIFF", "CMYK", bits, 1, notes)


def _split_alpha(
    page: Any, samples: NDArray[Any], notes: list[str]
) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    """Return (H, W) or (H, W, 3 or 4) colour samples, and the opacity where the file has one."""
    if samples.ndim == 2:
        return samples, None
    extra = [int(value) for value in page.extrasamples]
    n_color = samples.shape[2] - len(extra)
    n_color = {1: 1, 2: 1, 3: 3, 4: 4}.get(n_color, 1 if n_color < 3 else 3)
    if int(page.photometric) == 3:
        n_color = 1
    color = samples[..., 0] if n_color == 1 else samples[..., :n_color]
    if not extra or extra[0] not in (1, 2):
        if samples.shape[2] > n_color and extra:
            notes.append(f"{len(extra)} further channels are not shown.")
        return color, None
    top = np.iinfo(samples.dtype).max if samples.dtype.kind in "ui" else 1
    alpha = np.clip(samples[..., n_color].astype(np.float32) / np.float32(top), 0, 1)
    alpha = alpha.astype(np.float32)
    if extra[0] == 1:  # colours were stored multiplied by the opacity: undo it
        share = np.maximum(alpha, 1 / max(top, 65535))
        share = share if color.ndim == 2 else share[..., None]
        color = np.clip(color / share, 0, top).astype(samples.dtype)
    return color, alpha


def _inverted(samples: NDArray[Any], bits: int) -> NDArray[Any]:
    if samples.dtype.kind == "u":
        top = max(255, 2**bits - 1)
        return np.asarray(top - samples, samples.dtype)
    inverted = -1 - samples if samples.dtype.kind == "i" else samples.max() - samples
    return np.asarray(inverted, samples.dtype)


def _orientation(page: Any, notes: list[str]) -> int:
    tag = page.tags.get(ORIENTATION)
    value = int(tag.value) if tag is not None and str(tag.value).isdigit() else 1
    if value in range(2, 9):
        notes.append("Turned upright by the file's orientation mark.")
        return value
    return 1


def _profile(page: Any) -> bytes | None:
    profile = getattr(page, "iccprofile", None)
    return bytes(profile) if profile else None
