"""The samples of a TIFF page as a picture: colours, transparency, bits, the right way up."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging.color import alpha_note, to_rgb, upright
from cnsapp.imaging.decoded import Decoded
from cnsapp.imaging.rule import ReadingRule

ORIENTATION = 274
PICTURE_CODECS = (6, 7, 33003, 33005, 33007, 34712, 34892, 50001)  # they give RGB by themselves
NO_PICTURE = ("CIELAB", "ICCLAB", "ITULAB", "LOGLUV")


def convert(
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
    samples = upright(samples, orientation_of(page, notes))
    if photometric != "PALETTE":
        samples = widened(samples, page)
    alpha = None
    if not one_sample:
        samples, alpha = _split_alpha(page, samples, notes)
    transparent = alpha is not None
    if alpha is not None and alpha.min(initial=1) < 1:
        notes.append(alpha_note(rule.background))
    bits = depth(page)
    if photometric == "PALETTE":
        samples = np.moveaxis((np.asarray(page.colormap) >> 8).astype(np.uint8)[:, samples], 0, -1)
    elif photometric == "MINISWHITE":
        samples = inverted(samples, bits)
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
    decoded = Decoded(samples, "TIFF", mode, bits, 1, notes, alpha, profile_of(page))
    decoded.transparent = transparent
    return finished(decoded, rule.background) if samples.dtype == np.uint8 else decoded


def _from_other_colors(samples: NDArray[Any], photometric: str, notes: list[str]) -> NDArray[Any]:
    mode = {"CIELAB": "LAB", "YCBCR": "YCbCr"}[photometric]
    size = (samples.shape[1], samples.shape[0])
    data = np.ascontiguousarray(samples[..., :3]).tobytes()
    return np.asarray(to_rgb(Image.frombytes(mode, size, data, "raw", mode), notes))


def depth(page: Any) -> int:
    return int(np.max(page.bitspersample))


def widened(samples: NDArray[Any], page: Any) -> NDArray[Any]:
    """Return samples of fewer than 8 bits over the whole range of 8."""
    bits = depth(page)
    if samples.dtype == bool:
        return samples.astype(np.uint8) * 255
    if samples.dtype == np.uint8 and bits < 8:
        top = 2**bits - 1
        table = (np.arange(256) * 255 // top).clip(0, 255).astype(np.uint8)
        return np.asarray(table[samples])
    return samples


def finished(decoded: Decoded, background: str) -> Decoded:
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
    if profile_of(page):
        image.info["icc_profile"] = profile_of(page)
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


def inverted(samples: NDArray[Any], bits: int) -> NDArray[Any]:
    if samples.dtype.kind == "u":
        top = max(255, 2**bits - 1)
        return np.asarray(top - samples, samples.dtype)
    inverted = -1 - samples if samples.dtype.kind == "i" else samples.max() - samples
    return np.asarray(inverted, samples.dtype)


def orientation_of(page: Any, notes: list[str]) -> int:
    tag = page.tags.get(ORIENTATION)
    value = int(tag.value) if tag is not None and str(tag.value).isdigit() else 1
    if value in range(2, 9):
        notes.append("Turned upright by the file's orientation mark.")
        return value
    return 1


def profile_of(page: Any) -> bytes | None:
    profile = getattr(page, "iccprofile", None)
    return bytes(profile) if profile else None
