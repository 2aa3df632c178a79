"""TIFF files: Pillow for ordinary 8-bit pictures, tifffile with imagecodecs for all others."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging import pillow_files
from cnsapp.imaging.color import to_rgb, upright
from cnsapp.imaging.decoded import Decoded, pages_note, refusal
from cnsapp.imaging.limits import Limits

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it says, our notes say in words

BITS, COMPRESSION, ORIENTATION, SAMPLE_FORMAT = 258, 259, 274, 339
UNSIGNED = 1
# libtiff may lack these (JPEG 2000, LERC, Zstandard, WebP) and complains on the terminal
RARE_COMPRESSIONS = (33003, 33005, 34712, 34887, 50000, 50001)
PLAIN_MODES = ("1", "L", "P", "RGB", "RGBA", "RGBX", "CMYK", "LAB", "YCbCr", "LA", "PA")


def decode(path: Path, limits: Limits) -> Decoded:
    """Decode the first page of a TIFF."""
    try:
        with pillow_files.open_header(path, "TIFF", limits) as image:
            pages = int(getattr(image, "n_frames", 1))
            if _is_plain(image):
                bits = _bits(image)
                return pillow_files.finish(image, "TIFF", bits, pages_note(pages), pages)
    except UnreadableImageError as error:
        if "limit" in str(error) or "strip of" in str(error):
            raise
    except Exception as error:  # any complaint of the decoder: the other one may know better
        return _second_opinion(path, limits, error)
    return _decode_tifffile(path, limits)


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


def _second_opinion(path: Path, limits: Limits, first: Exception) -> Decoded:
    if "truncat" in str(first).lower():
        raise refusal(first) from first
    try:
        return _decode_tifffile(path, limits)
    except UnreadableImageError as error:
        raise error from first


def _decode_tifffile(path: Path, limits: Limits) -> Decoded:
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            limits.check_size(page.imagewidth, page.imagelength)
            _check_complete(page, path.stat().st_size)
            what = "pages (channels or planes)" if tiff.is_ome or tiff.is_imagej else "pages"
            pages = len(tiff.pages)
            return _convert(page, page.asarray(), pages_note(pages, what), pages)
    except UnreadableImageError:
        raise
    except Exception as error:  # codecs raise many kinds
        raise _in_words(error) from error


def _in_words(error: Exception) -> UnreadableImageError:
    text = str(error)
    if "codec" in text.lower() or "not supported" in text.lower():
        return UnreadableImageError(
            f"The TIFF uses a compression that cannot be decoded here ({text[:120]}).",
            "",
            "Save it as TIFF with LZW compression or none.",
        )
    return refusal(error)


def _check_complete(page: Any, n_bytes: int) -> None:
    ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False)]
    if not ends or max(ends) > n_bytes:  # tifffile may fill what is missing with zeros
        raise UnreadableImageError(
            "The file is cut off: only part of the picture is there.",
            "",
            "Copy it again from where it came from.",
        )


def _convert(page: Any, samples: NDArray[Any], notes: list[str], pages: int) -> Decoded:
    photometric = getattr(page.photometric, "name", str(page.photometric))
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
    if samples.dtype == bool:
        samples = samples.astype(np.uint8) * 255
    samples, alpha = _split_alpha(page, samples, notes)
    bits = int(np.max(page.bitspersample))
    if photometric == "PALETTE":
        samples = np.moveaxis((np.asarray(page.colormap) >> 8).astype(np.uint8)[:, samples], 0, -1)
    elif photometric == "MINISWHITE":
        samples = _inverted(samples, bits)
    elif photometric == "SEPARATED":
        return _from_pillow(samples, "CMYK", page, notes, pages)
    elif photometric in ("CIELAB", "ICCLAB", "ITULAB", "LOGLUV") or (
        photometric == "YCBCR" and samples.dtype != np.uint8
    ):
        raise UnreadableImageError(f"The TIFF has {bits}-bit {photometric} colours.", "",
                                   "Save it as 8- or 16-bit RGB.")  # fmt: skip
    mode = "gray" if samples.ndim == 2 else "RGB"
    decoded = Decoded(samples, "TIFF", mode, bits, pages, notes, alpha, _profile(page))
    return _finished(decoded) if samples.dtype == np.uint8 else decoded


def _finished(decoded: Decoded) -> Decoded:
    """Bring 8-bit samples to the finished picture, as Pillow's files are."""
    samples, alpha = decoded.samples, decoded.alpha
    image = Image.fromarray(np.ascontiguousarray(samples))
    if alpha is not None:
        image = image.convert("RGBA")
        image.putalpha(Image.fromarray((alpha * 255 + 0.5).astype(np.uint8)))
    if decoded.profile:
        image.info["icc_profile"] = decoded.profile
    decoded.samples, decoded.alpha = np.asarray(to_rgb(image, decoded.notes)), None
    return decoded


def _from_pillow(
    samples: NDArray[Any], mode: str, page: Any, notes: list[str], pages: int
) -> Decoded:
    if samples.dtype == np.uint16:
        samples = (samples >> 8).astype(np.uint8)
        notes.append("16-bit CMYK reduced to 8 bits.")
    if samples.dtype != np.uint8 or samples.ndim != 3 or samples.shape[2] != 4:
        raise UnreadableImageError("The TIFF has separated colours other than CMYK.", "",
                                   "Save it as RGB.")  # fmt: skip
    image = Image.frombytes(mode, samples.shape[1::-1], np.ascontiguousarray(samples).tobytes())
    if _profile(page):
        image.info["icc_profile"] = _profile(page)
    bits = int(np.max(page.bitspersample))
    return Decoded(np.asarray(to_rgb(image, notes)), "TIFF", mode, bits, pages, notes)


def _split_alpha(
    page: Any, samples: NDArray[Any], notes: list[str]
) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    """Return (H, W) or (H, W, 3 or 4) colour samples, and the opacity where the file has one."""
    if samples.ndim == 2:
        return samples, None
    extra = [int(value) for value in page.extrasamples]
    n_color = samples.shape[2] - len(extra)
    n_color = {1: 1, 2: 1, 3: 3, 4: 4}.get(n_color, 1 if n_color < 3 else 3)
    if int(page.photometric) in (0, 1, 3) and n_color > 1:
        notes.append(f"The file has {samples.shape[2]} channels; the first is shown.")
        n_color, extra = 1, []
    color = samples[..., 0] if n_color == 1 else samples[..., :n_color]
    if not extra or extra[0] not in (1, 2):
        if samples.shape[2] > n_color and extra:
            notes.append(f"{len(extra)} further channels are not shown.")
        return color, None
    top = np.iinfo(samples.dtype).max if samples.dtype.kind in "ui" else 1
    alpha = np.clip(samples[..., n_color].astype(np.float32) / np.float32(top), 0, 1)
    alpha = alpha.astype(np.float32)
    if extra[0] == 1:  # colours were stored multiplied by the opacity: undo it
        share = np.maximum(alpha, 1 / top)
        share = share if color.ndim == 2 else share[..., None]
        color = np.clip(color / share, 0, top).astype(samples.dtype)
    if alpha.min(initial=1) < 1:
        notes.append("Transparency laid over white.")
    return color, alpha


def _inverted(samples: NDArray[Any], bits: int) -> NDArray[Any]:
    if samples.dtype.kind == "u":
        top = 255 if bits == 1 else 2**bits - 1
        return (top - samples).astype(samples.dtype)
    return (-1 - samples if samples.dtype.kind == "i" else samples.max() - samples).astype(
        samples.dtype
    )


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
