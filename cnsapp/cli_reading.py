"""The command that shows and sets how a project reads its images."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnsapp.cli_io import JsonFlag, ProjectName, answer, finish, opened, say, who
from cnsapp.errors import InvalidInputError

if TYPE_CHECKING:
    from cnsapp.bootstrap import App
    from cnsapp.imaging.rule import Channel, ReadingRule
    from cnsapp.services.reading import Change, Reading

CHANNEL = re.compile(r"(\d{1,4})=(#[0-9A-Fa-f]{6})(?::([^:]+):([^:]+))?")
NONE = "none"


def register(cli: typer.Typer) -> None:
    """Add this command."""
    cli.command("reading")(reading)


def reading(
    project: ProjectName,
    window: Annotated[
        list[str] | None,
        typer.Option(
            "--window",
            help="Kind of samples = black:white, range or percentile: uint16=0:4095. "
            "May be repeated.",
        ),
    ] = None,
    windows_from: Annotated[
        str | None,
        typer.Option(help="How kinds that come later get theirs: range, percentile or fixed."),
    ] = None,
    page: Annotated[
        str | None, typer.Option(help="Of stacks: first, max, or a number from 1.")
    ] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option(
            "--channel",
            help="Number = colour, and its window: 1=#0000FF:100:4000. May be repeated, and names "
            "all channels that are shown; none: the first in gray.",
        ),
    ] = None,
    background: Annotated[
        str | None, typer.Option(help="Colour behind transparency: #FFFFFF.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the images are read again.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show or set how a project reads its images: windows, pages, channels, background."""
    from cnsapp.services.projects import get_project
    from cnsapp.services.reading import apply_rule, get_reading, what_changes

    app = opened()
    view = get_project(app.store, project=project)
    now = get_reading(app.store, project_id=view.id)
    wished = now.rule
    if windows_from is not None:
        wished = replace(wished, windows_from=windows_from)
    if page is not None:
        wished = replace(wished, page=page)
    if background is not None:
        wished = replace(wished, background=background.upper())
    if channel:
        wished = replace(wished, channels=_channels(channel))
    for text in window or []:
        kind, low, high = _window(app, view.id, wished, text)
        wished = wished.with_window(kind, low, high)
    if not any((windows_from, page, background, channel, window)):
        answer({"reading": now.rule.as_json(), "files": _files(now)}, _shown(now), as_json)
        return
    change = what_changes(app, project_id=view.id, rule=wished)
    done = apply_rule(app, project_id=view.id, rule=wished, requested_by=who(None))
    rule = get_reading(app.store, project_id=view.id).rule
    facts: dict[str, Any] = {
        "reading": rule.as_json(),
        "changes": change.differences,
        "images": done.n_images,
        "models": [model.id for model in change.models],
        "job_id": done.job_id,
    }
    for model in change.models:
        say(f"Note: model {model.id} (“{model.name}”) was trained on another look. Train again.")
    lines = _said(change, done.job_id)
    if wait and done.job_id is not None:
        job = finish(app, done.job_id)
        facts |= {"state": job.state, **job.result}
        lines = [f"{job.result['read']} images were read again."]
        lines += [f"  not read {row['file']}: {row['reason']}" for row in job.result["failed"]]
    answer(facts, lines, as_json)


def _window(app: App, project_id: int, rule: ReadingRule, text: str) -> tuple[str, float, float]:
    """Return (kind, black, white) of “uint16=0:4095”, “uint16=range” or “uint16=percentile”."""
    kind, _, value = text.partition("=")
    kind = kind.strip()
    from cnsapp.imaging.rule_changes import SAMPLE_WORDS

    if kind not in SAMPLE_WORDS:
        raise InvalidInputError(
            f"There is no kind of samples “{kind}”.", "", f"Use one of: {', '.join(SAMPLE_WORDS)}."
        )
    if value in ("range", "percentile"):
        return kind, *_measured(app, project_id, rule, kind, value)
    low, _, high = value.partition(":")
    return kind, _number(low, text), _number(high, text)


def _measured(
    app: App, project_id: int, rule: ReadingRule, kind: str, how: str
) -> tuple[float, float]:
    from cnsapp.services.reading_levels import find_levels

    say("Looking into some of the files…")
    found = find_levels(app, project_id=project_id, page=rule.page).result()
    levels = found.levels.get(kind)
    if levels is None:
        raise InvalidInputError(
            f"No window by {how} can be taken from this project's {kind} files.",
            "None of its files that were looked into has such samples.",
            f"Give it in numbers: --window {kind}=0:4095.",
        )
    return levels.by_range if how == "range" else levels.by_percentile


def _channels(texts: list[str]) -> tuple[Channel, ...]:
    from cnsapp.imaging.rule import Channel

    if texts == [NONE]:
        return ()
    found = []
    for text in texts:
        parts = CHANNEL.fullmatch(text.strip())
        if parts is None or int(parts[1]) < 1:
            raise InvalidInputError(
                f"“{text}” names no channel.",
                "",
                "Write its number from 1, its colour and its window: 1=#0000FF:100:4000.",
            )
        ends = [None if part is None else _number(part, text) for part in parts.group(3, 4)]
        found.append(Channel(int(parts[1]) - 1, parts[2].upper(), ends[0], ends[1]))
    return tuple(sorted(found, key=lambda channel: channel.index))


def _number(text: str, whole: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidInputError(
            f"“{text}” in “{whole}” is no number.",
            "",
            "Write black and white as two numbers: uint16=0:4095.",
        ) from None


def _files(now: Reading) -> dict[str, int]:
    return {
        "images": now.n_images,
        "deep": now.n_deep,
        "pages": now.n_paged,
        "channels": now.n_channelled,
        "transparent": now.n_transparent,
    }


def _shown(now: Reading) -> list[str]:
    from cnsapp.imaging.rule_changes import channel_words, color_words, page_words, window_words

    if now.is_plain:
        return ["All images are plain 8-bit pictures: there is nothing to set."]
    lines = [
        f"{kind} samples: {window_words(now.rule.window(kind))} (--window)" for kind in now.samples
    ]
    lines.append(f"Kinds of samples that come later: by {now.rule.windows_from} (--windows-from)")
    lines.append(f"{now.n_paged} stacks: {page_words(now.rule.page)} (--page)")
    lines.append(f"{now.n_channelled} files of channels: {channel_words(now.rule.channels)} "
                 "(--channel)")  # fmt: skip
    lines.append(f"{now.n_transparent} transparent files: over {color_words(now.rule.background)} "
                 "(--background)")  # fmt: skip
    return lines


def _said(change: Change, job_id: int | None) -> list[str]:
    lines = [line[:1].upper() + line[1:] + "." for line in change.differences]
    if job_id is None:
        return [*lines, "No image looks different."]
    return [
        *lines,
        f"{change.n_images} images are read again in job {job_id}. The app or `worker` runs it; "
        "`jobs` shows how far it is.",
    ]
