"""What goes through the pipes between the app and its reading processes.

A frame is one JSON object and, where there is one, an array. JSON and not pickle: a file that takes
a reading process over must not be able to run anything here.
"""

from __future__ import annotations

import json
import math
import os
import struct
from io import RawIOBase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnsapp.errors import (
    CnsError,
    InvalidInputError,
    NotFoundError,
    StoreError,
    UnreadableImageError,
)
from cnsapp.imaging.decoded import refusal
from cnsapp.imaging.reader import WindowMissingError

HEAD = struct.Struct("<II")  # bytes of the JSON text, number of dimensions of the array
MAX_TEXT = 64_000_000  # bytes; a longer announcement is nonsense
PIECE = 1 << 22  # bytes a call: some systems cannot write 2 GB at once
ERRORS = (CnsError, InvalidInputError, NotFoundError, StoreError, UnreadableImageError)
KINDS = {kind.__name__: kind for kind in ERRORS}


class WireClosedError(Exception):
    """The other side is gone."""


def send(stream: RawIOBase, message: dict[str, Any], array: NDArray[Any] | None = None) -> None:
    """Write one frame; raise WireClosedError when nobody reads any more."""
    if array is not None:
        array = np.ascontiguousarray(array)
        message = {**message, "array": [array.dtype.str, list(array.shape)]}
    text = json.dumps(message, default=_as_plain).encode()  # ASCII, so any file name passes
    _write(stream, memoryview(HEAD.pack(len(text), 0 if array is None else array.ndim) + text))
    if array is not None and array.size:
        _write(stream, _bytes_of(array))


def receive(stream: RawIOBase) -> tuple[dict[str, Any], NDArray[Any] | None]:
    """Read one frame; raise WireClosedError when it does not come, or is none."""
    length, dimensions = HEAD.unpack(_read(stream, memoryview(bytearray(HEAD.size))))
    if length > MAX_TEXT:
        raise WireClosedError(f"a frame of {length} bytes")
    try:
        text = bytes(_read(stream, memoryview(bytearray(length))))
        message = json.loads(text, object_hook=_from_plain)
        if not dimensions:
            return message, None
        dtype, shape = message.pop("array")
        array = np.empty(shape, np.dtype(dtype))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise WireClosedError("what came is no frame") from error
    if math.prod(shape):
        _read(stream, _bytes_of(array))
    return message, array


def error_as_json(error: Exception) -> dict[str, Any]:
    """Return an error so that the other side can raise the same one."""
    if isinstance(error, WindowMissingError):
        return {"type": "WindowMissingError", "kind": error.kind}
    if isinstance(error, CnsError):
        name = next(c.__name__ for c in type(error).__mro__ if c.__name__ in KINDS)
        return {"type": name, "said": [error.what, error.why, error.remedy]}
    if isinstance(error, OSError):
        return {"type": "OSError", "said": [error.errno, error.strerror or str(error)]}
    return error_as_json(refusal(error))


def error_from_json(said: dict[str, Any]) -> Exception:
    """Return the error that `error_as_json` described."""
    if said["type"] == "WindowMissingError":
        return WindowMissingError(str(said["kind"]))
    if said["type"] == "OSError":
        return OSError(*said["said"])
    return KINDS[said["type"]](*said["said"])


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _write(stream: RawIOBase, data: memoryview) -> None:
    done = 0
    while done < len(data):
        try:
            done += stream.write(data[done : done + PIECE]) or 0
        except (OSError, ValueError) as error:  # ValueError: closed on this side
            raise WireClosedError("nobody reads") from error


def _read(stream: RawIOBase, into: memoryview) -> memoryview:
    done = 0
    while done < len(into):
        try:
            n = stream.readinto(into[done : done + PIECE])
        except (OSError, ValueError) as error:
            raise WireClosedError("nobody writes") from error
        if not n:
            raise WireClosedError("the other side has ended")
        done += n
    return into


def _as_plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):  # a name on disk is bytes, not always text
        return {"__path__": os.fsencode(value).decode("latin-1")}
    raise TypeError(f"{type(value).__name__} cannot be sent to a reading process")


def _from_plain(found: dict[str, Any]) -> Any:
    if "__path__" in found:
        return Path(os.fsdecode(found["__path__"].encode("latin-1")))
    return found
