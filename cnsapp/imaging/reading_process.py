"""A process that decodes files for the app, one at a time: `python -m` this module.

It may crash, hang or run out of memory without harm: see `cnsapp.imaging.reading_pool`, which
starts it and speaks with it through its standard input and output. It knows the imaging room only.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from io import FileIO
from pathlib import Path
from typing import Any

import psutil
from numpy.typing import NDArray

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.reader import check_header, read_image, read_sample_range
from cnsapp.imaging.rule import ReadingRule
from cnsapp.imaging.store import ImageFolder
from cnsapp.imaging.thumbs import make_thumbs
from cnsapp.imaging.wire import WireClosedError, error_as_json, receive, send

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

IDLE_SECONDS = 120.0  # without work it ends and gives its memory back
WORN_BYTES = 200_000_000  # what a process may keep between two files; a fresh one has 45 MB
MAX_COMPLAINTS = 1_000_000  # bytes that decoders may write to the terminal
GRACE_SECONDS = 3.0  # the app ends a hanging process; this is for one whose app is gone
BASE_BYTES, BYTES_PER_PIXEL = 300_000_000, 24  # what decoding an image of so many pixels may take
MARGIN_BYTES = 200_000_000  # at the least above what the process has anyway
RAM_SHARE = 0.75
BOUNDED_BY_KERNEL = sys.platform.startswith("linux")  # elsewhere the guard looks at the memory
GUARD_SECONDS = 0.5
TOO_MUCH = 77  # exit code: the guard found too much memory


@dataclass(frozen=True)
class Answer:
    """What an operation found: plain data, and pixels or other numbers where there are any."""

    facts: dict[str, Any] = field(default_factory=dict)
    array: NDArray[Any] | None = None


def memory_bound(limits: Limits) -> int:
    """Return how many bytes decoding may take: what the largest allowed image needs."""
    return _bound_of(limits.max_pixels)


def _bound_of(n_pixels: int) -> int:
    return min(BASE_BYTES + BYTES_PER_PIXEL * n_pixels, int(_ram() * RAM_SHARE))


@dataclass(frozen=True)
class DeclaredLimits(Limits):
    """Limits that tell how many values a header declares, when the reader checks it.

    Hardly any bytes can hold gigabytes: once the header is read, decoding may take what an image of
    that size needs, and not what the largest allowed image would.
    """

    told: Callable[[int], None] = field(default=lambda _n: None, compare=False)

    def check_size(self, width: int, height: int) -> None:
        """As `Limits.check_size`."""
        super().check_size(width, height)
        self.told(width * height)

    def check_values(self, width: int, height: int, samples: int) -> None:
        """As `Limits.check_values`."""
        super().check_values(width, height, samples)
        self.told(width * height * samples)


@cache
def _ram() -> int:
    return int(psutil.virtual_memory().total)


def _data_bytes() -> int:
    return int(getattr(_me().memory_info(), "data", 0))


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # reading it says why


@cache
def _me() -> Any:
    return psutil.Process()


# operations: (path, rule, limits, **plain arguments) -> Answer -----------------------------------


def _read(path: Path, rule: ReadingRule, limits: Limits, *, strict: bool = False) -> Answer:
    result = read_image(path, rule, limits, strict=strict)
    return Answer(result.facts.as_json(), result.pixels)


def _facts(path: Path, rule: ReadingRule, limits: Limits, *, strict: bool = False) -> Answer:
    """Decode a file wholly, and say only what is known of it."""
    return Answer(read_image(path, rule, limits, strict=strict).facts.as_json())


def _check_header(path: Path, _rule: ReadingRule, limits: Limits) -> Answer:
    check_header(path, limits)
    return Answer()


def _sample_range(path: Path, rule: ReadingRule, limits: Limits) -> Answer:
    found = read_sample_range(path, limits, rule)
    return Answer() if found is None else Answer(asdict(found))


def _look_at(
    path: Path,
    rule: ReadingRule,
    limits: Limits,
    *,
    root: Path,
    sha256: str,
    seen: str | None = None,
    strict: bool = False,
) -> Answer:
    """Decode a file wholly and write its thumbnails below the data folder `root`."""
    result = read_image(path, rule, limits, strict=strict)
    sign = result.facts.seen if seen is None else seen
    folder = ImageFolder(root)
    make_thumbs(result.pixels, folder.thumb_path(sha256, sign), folder.view_path(sha256, sign))
    return Answer(result.facts.as_json())


def _make_pyramid(
    path: Path, rule: ReadingRule, limits: Limits, *, target_dir: Path, **options: Any
) -> Answer:
    """Cut a picture into the viewer's tiles; the facts are what `make_pyramid` returns."""
    from cnsapp.imaging.pyramid import make_pyramid  # only the viewer needs it

    return Answer(make_pyramid(path, rule, limits, target_dir, **options))


def _small(path: Path, rule: ReadingRule, limits: Limits, *, side: int) -> Answer:
    """Return a picture that fits into a square of `side` pixels."""
    from cnsapp.imaging.looks import small_picture

    return Answer(array=small_picture(path, rule, limits, side))


def _levels(path: Path, _rule: ReadingRule, limits: Limits, *, page: str) -> Answer:
    """Return the values that a file holds, as `FileLevels.as_json`."""
    from cnsapp.imaging.looks import file_levels

    return Answer(file_levels(path, limits, page).as_json())


def _slide(path: Path, rule: ReadingRule, limits: Limits, *, what: str, **options: Any) -> Answer:
    """Look at a whole slide or cut tiles from it."""
    from cnsapp.imaging import slide_work  # only slides need openslide

    return Answer(*slide_work.answer(path, rule, limits, what, **options))


OPERATIONS: dict[str, Callable[..., Answer]] = {
    "slide": _slide,
    "read": _read,
    "facts": _facts,
    "check_header": _check_header,
    "sample_range": _sample_range,
    "look_at": _look_at,
    "make_pyramid": _make_pyramid,
    "small": _small,
    "levels": _levels,
}

READING = ("read", "facts", "sample_range", "look_at", "small", "levels", "make_pyramid")

# the process -------------------------------------------------------------------------------------


@dataclass
class _State:
    """What the guard thread looks at."""

    parent: int
    idle_since: float | None = None  # None: at work
    bound: int = 0
    most: int = 0  # the bound before the header was read
    declared: int = 0  # the most values that the header told of so far


def main() -> None:
    """Answer requests until the app is gone, or nothing was asked for a while."""
    requests, answers = _own_pipes()
    _protect()
    state = _State(os.getppid())
    threading.Thread(target=_guard, args=(state,), daemon=True).start()
    send(answers, {"ready": os.getpid()})
    while True:
        state.idle_since = time.monotonic()
        try:
            request = receive(requests)[0]
            state.idle_since = None
            _serve(request, answers, state)
        except WireClosedError:
            os._exit(0)


def _own_pipes() -> tuple[FileIO, FileIO]:
    """Keep the pipes to ourselves: what a decoder prints must not get into them."""
    requests, answers = FileIO(os.dup(0), "rb"), FileIO(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    return requests, answers


def _protect() -> None:
    faulthandler.enable()
    if hasattr(signal, "SIGINT"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the app
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:  # Linux: when memory runs out, this process goes first, not the app
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        pass


def _guard(state: _State) -> None:
    """End the process when its app is gone, even amid a file, or when nobody needs it."""
    while True:
        time.sleep(GUARD_SECONDS)
        idle = state.idle_since
        if idle is not None and time.monotonic() - idle > IDLE_SECONDS:
            os._exit(0)
        if not _is_there(state.parent):
            os._exit(0)
        if idle is None and not BOUNDED_BY_KERNEL and _me().memory_info().rss > state.bound:
            os._exit(TOO_MUCH)


def _is_there(parent: int) -> bool:
    if os.name == "posix":
        return os.getppid() == parent  # an orphan gets another parent
    return bool(psutil.pid_exists(parent))


def _serve(request: dict[str, Any], answers: FileIO, state: _State) -> None:
    limits = Limits(**request["limits"])
    state.most = state.bound = memory_bound(limits)
    state.declared = 0
    _bound_memory(state.bound)
    if request["operation"] in READING:
        before = _data_bytes() + 2 * _size_of(request["path"])  # some decoders hold the file too
        limits = DeclaredLimits(**request["limits"], told=partial(_tighten, state, before))
    _set_alarm(request["seconds"] + GRACE_SECONDS)
    answer, error = Answer(), None
    try:
        answer = OPERATIONS[request["operation"]](
            request["path"],
            ReadingRule.from_json(request["rule"]),
            limits,
            **request["arguments"],
        )
    except Exception as found:
        if not isinstance(found, UnreadableImageError):
            traceback.print_exc()
        error = error_as_json(_too_much(found, state.bound) or found)
    worn = _is_worn(answer)
    _set_alarm(0)
    send(answers, {"facts": answer.facts, "error": error, "worn": worn}, answer.array)


def _tighten(state: _State, before: int, n_values: int) -> None:
    """Bound the memory by what the header declares, with room above what there was `before`."""
    if n_values <= state.declared:
        return
    state.declared = n_values
    wanted = max(BASE_BYTES, before + MARGIN_BYTES) + BYTES_PER_PIXEL * n_values
    state.bound = min(state.most, wanted)
    _bound_memory(state.bound)


def _set_alarm(seconds: float) -> None:
    """End the process after so long, even if a decoder lets no Python run; 0: never mind."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)  # nobody handles it: it kills
    elif seconds:
        faulthandler.dump_traceback_later(seconds, exit=True)
    else:
        faulthandler.cancel_dump_traceback_later()


def _bound_memory(n_bytes: int) -> None:
    # private writable memory, so that mapped files and libraries do not count; the kernel refuses
    # it at once, and the decoder says so
    if resource is not None and BOUNDED_BY_KERNEL:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        top = n_bytes if hard == resource.RLIM_INFINITY else min(n_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (top, hard))


def _too_much(error: Exception, bound: int) -> UnreadableImageError | None:
    reasons: list[BaseException] = [error]
    for found in reasons:  # grows as it is walked: what an error came of, on both ways
        reasons += [e for e in (found.__cause__, found.__context__) if e and e not in reasons]
    if not any(isinstance(found, MemoryError) for found in reasons):
        return None
    return too_much_memory(bound)


def too_much_memory(bound: int) -> UnreadableImageError:
    """Return the refusal of a file that takes more than `bound` bytes to decode."""
    return UnreadableImageError(
        f"Decoding the file takes more than {bound / 1e6:,.0f} MB of memory.",
        "It was stopped: damaged or hostile files fill the memory that way.",
        "If it is an honest image, raise CNS_MAX_PIXELS, or cut it into tiles.",
    )


def _is_worn(answer: Answer) -> bool:
    """Return whether it keeps too much memory, beside what is given away at once."""
    kept = _me().memory_info().rss
    kept -= 0 if answer.array is None else answer.array.nbytes
    return bool(kept > WORN_BYTES or os.fstat(2).st_size > MAX_COMPLAINTS)


if __name__ == "__main__":
    main()
