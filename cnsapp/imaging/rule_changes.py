"""What a change of the reading rule means: which files it touches, and what differs, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cnsapp.imaging.rule import FIRST, MAX, WHITE, Channel, ReadingRule

# what each kind of samples is called on the screen
SAMPLE_WORDS = {
    "uint16": "16-bit",
    "uint32": "32-bit",
    "int8": "signed 8-bit",
    "int16": "signed 16-bit",
    "int32": "signed 32-bit",
    "float": "floating-point",
}
WITH_ALPHA = ("PNG", "TIFF", "WEBP", "GIF", "AVIF", "JPEG2000")
COLOR_WORDS = {
    "#FFFFFF": "white",
    "#000000": "black",
    "#FF0000": "red",
    "#00FF00": "green",
    "#0000FF": "blue",
    "#FF00FF": "magenta",
    "#00FFFF": "cyan",
    "#FFFF00": "yellow",
    "#808080": "gray",
    "#2F6BFF": "blue",  # the six that are proposed for channels
    "#00C853": "green",
    "#FF4B3E": "red",
    "#FF3FD2": "magenta",
    "#00CFE8": "cyan",
    "#FFD21F": "yellow",
}


@dataclass(frozen=True)
class FileKind:
    """Files that a rule treats alike, as far as can be told before they are read again.

    Parameters
    ----------
    facts
        What `ReadingRule.seen` asks of a file: `samples`, `pages`, `channels`, `alpha`, and
        `format` and `bits`. Without `samples` the file was imported before that was noted.
    seen
        How the rule touched them when their pictures were made.
    n
        How many there are.
    examples
        The ids of one or two of them.
    """

    facts: dict[str, Any]
    seen: str = ""
    n: int = 1
    examples: tuple[int, ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether the facts say all that a rule asks."""
        return "samples" in self.facts

    @property
    def is_deep(self) -> bool:
        """Whether the samples need a window."""
        if self.is_known:
            return str(self.facts["samples"]) != "uint8"
        return int(self.facts.get("bits", 8)) > 8

    @property
    def has_pages(self) -> bool:
        """Whether a page or plane is to be chosen."""
        return int(self.facts.get("pages", 1)) > 1

    @property
    def has_channels(self) -> bool:
        """Whether there are channels that are no plain colours (or may be)."""
        if self.is_known:
            return int(self.facts.get("channels", 1)) > 1
        return self.facts.get("format") == "TIFF" and (self.has_pages or self.is_deep)

    @property
    def has_alpha(self) -> bool:
        """Whether something lies behind the picture (or may)."""
        if self.is_known:
            return bool(self.facts.get("alpha"))
        return self.facts.get("format") in WITH_ALPHA

    def is_touched(self, rule: ReadingRule) -> bool:
        """Return whether the files must be read again to look as the rule says.

        Files whose facts are older than the rule's parts are, when a part may concern them: of
        deep and stacked ones it is not known which samples and channels they have.
        """
        if self.is_known:
            return rule.seen(self.facts) != self.seen
        return self.is_deep or self.has_pages or (self.has_alpha and rule.background != WHITE)

    def differs(self, old: ReadingRule, new: ReadingRule) -> bool:
        """Return whether two rules read these files differently."""
        if self.is_known:
            return old.seen(self.facts) != new.seen(self.facts)
        return (
            (self.is_deep and old.windows != new.windows)
            or (self.has_pages and old.page != new.page)
            or (self.has_channels and old.channels != new.channels)
            or (self.has_alpha and old.background != new.background)
        )


def differences(
    old: ReadingRule, new: ReadingRule, kinds: Iterable[FileKind] | None = None
) -> list[str]:
    """Return what one rule does differently from another, in words; [] when nothing.

    Parameters
    ----------
    old, new
        The sentences say what `new` does "instead of" what `old` does.
    kinds
        Only differences that these files show; None: all.

    Examples
    --------
    >>> differences(ReadingRule(), ReadingRule(page="max", background="#000000"))
    ['stacks as their maximum projection instead of their first page', \
'black behind transparency instead of white']
    """
    files = None if kinds is None else [kind for kind in kinds if kind.differs(old, new)]

    def concerns(test: Callable[[FileKind], bool]) -> bool:
        return files is None or any(test(kind) for kind in files)

    found = []
    for kind in sorted({row[0] for row in (*old.windows, *new.windows)}):
        before, now = old.window(kind), new.window(kind)
        if before != now and concerns(lambda file, kind=kind: _has_samples(file, kind)):  # type: ignore[misc]
            name = SAMPLE_WORDS.get(kind, kind)
            found.append(f"{name} samples {window_words(now)} instead of {window_words(before)}")
    if old.page != new.page and concerns(lambda file: file.has_pages):
        found.append(f"stacks as {page_words(new.page)} instead of {page_words(old.page)}")
    if old.channels != new.channels and concerns(lambda file: file.has_channels):
        found.append(
            f"{channel_words(new.channels)} instead of {channel_words(old.channels, new.channels)}"
        )
    if old.background != new.background and concerns(lambda file: file.has_alpha):
        found.append(
            f"{color_words(new.background)} behind transparency instead of "
            f"{color_words(old.background)}"
        )
    return found


def _has_samples(file: FileKind, kind: str) -> bool:
    if file.has_pages:  # a later page may hold other samples than the first
        return True
    return file.facts["samples"] == kind if file.is_known else file.is_deep


def window_words(window: tuple[float, float] | None) -> str:
    """Return a window as “from 0 to 4,095”."""
    if window is None:
        return "without a fixed window"
    return f"from {level(window[0])} to {level(window[1])}"


def level(value: float) -> str:
    """Return a sample value as people write it: `4,095`, `0.25`."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.6g}"


def page_words(page: str) -> str:
    """Return which page of a stack is meant."""
    if page == FIRST:
        return "their first page"
    return "their maximum projection" if page == MAX else f"their page {page}"


def color_words(color: str) -> str:
    """Return a colour by its name, where it has a common one."""
    return COLOR_WORDS.get(color, color)


def channel_words(channels: Sequence[Channel], beside: Sequence[Channel] = ()) -> str:
    """Return which channels are shown how; `beside` are those of the rule it is compared with.

    Levels are only named where colours alone would not tell the two apart.
    """
    if not channels:
        return "the first channel in gray"
    plain = [(c.index, c.color) for c in channels]
    levels = plain == [(c.index, c.color) for c in beside] or not beside
    return "channels " + ", ".join(_channel(c, levels) for c in channels)


def _channel(channel: Channel, levels: bool) -> str:
    text = f"{channel.index + 1} {color_words(channel.color)}"
    if not levels or (channel.low is None and channel.high is None):
        return text
    low = "auto" if channel.low is None else level(channel.low)
    high = "auto" if channel.high is None else level(channel.high)
    return f"{text} ({low} to {high})"
