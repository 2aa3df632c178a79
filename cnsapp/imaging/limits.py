"""How large an image may be, checked from its header before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass

from cnsapp.errors import UnreadableImageError

VALUES_A_PIXEL = 8  # channels that a page may hold for each pixel at the limit of pixels


class LimitError(UnreadableImageError):
    """A file declares more than the limits allow; it was not decoded."""


@dataclass(frozen=True)
class Limits:
    """Bounds on one file; raise them in the settings for honest large scans.

    Parameters
    ----------
    max_pixels
        Width times height, in pixels.
    max_file_bytes
        Size of the file.
    max_aspect_ratio
        Long side over short side.
    max_frames
        Pages, planes, channels and frames of one file together.
    read_seconds
        Time for decoding one file in another process; large files get more (`isolated`).
    """

    max_pixels: int = 200_000_000
    max_file_bytes: int = 4_000_000_000
    max_aspect_ratio: float = 200.0
    max_frames: int = 10_000
    read_seconds: float = 60.0

    def check_bytes(self, n_bytes: int) -> None:
        """Raise UnreadableImageError when a file of this size is too large, or empty."""
        if n_bytes == 0:
            raise UnreadableImageError("The file is empty (0 bytes).")
        if n_bytes > self.max_file_bytes:
            raise LimitError(
                f"The file has {n_bytes / 1e6:,.0f} MB; {self.max_file_bytes / 1e6:,.0f} MB is the "
                "limit.",
                "",
                "Raise CNS_MAX_FILE_BYTES if it is an honest large image.",
            )

    def check_size(self, width: int, height: int) -> None:
        """Raise UnreadableImageError when an image of this size may not be decoded."""
        if width < 1 or height < 1:
            raise UnreadableImageError(f"The image declares a size of {width} × {height} pixels.")
        if width * height > self.max_pixels:
            raise LimitError(
                f"The image declares {width:,} × {height:,} pixels, more than the limit of "
                f"{self.max_pixels:,} pixels.",
                "It was not decoded: damaged or hostile files fill the memory that way.",
                "Raise CNS_MAX_PIXELS if it is an honest large image, or cut it into tiles.",
            )
        if max(width, height) > self.max_aspect_ratio * min(width, height):
            raise LimitError(
                f"The image is a strip of {width:,} × {height:,} pixels: its sides differ more "
                f"than {self.max_aspect_ratio:g} times.",
                "",
                "Raise CNS_MAX_ASPECT_RATIO if it is meant to be so.",
            )

    def check_frames(self, frames: int) -> None:
        """Raise UnreadableImageError when a file declares more pages or frames than allowed."""
        if frames > self.max_frames:
            raise LimitError(
                f"The file holds more than {self.max_frames:,} pages or frames, which is the "
                "limit.",
                "It was not decoded: damaged or hostile files take hours that way.",
                "Raise CNS_MAX_FRAMES if it is an honest long stack, or split it.",
            )

    def check_values(self, width: int, height: int, samples: int) -> None:
        """Raise UnreadableImageError when what must be decoded at once is far beyond a picture."""
        if width * height * samples > VALUES_A_PIXEL * self.max_pixels:
            raise LimitError(
                f"The image declares {width:,} × {height:,} pixels with {samples:,} values each, "
                f"more than {VALUES_A_PIXEL} times the limit of {self.max_pixels:,} pixels.",
                "It was not decoded: damaged or hostile files fill the memory that way.",
                "Raise CNS_MAX_PIXELS if it is an honest large image.",
            )
