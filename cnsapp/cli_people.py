"""Commands for several people and for progress: agreement, readings, progress."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnsapp.cli_io import Annotator, JsonFlag, ProjectName, answer, opened, table, who

if TYPE_CHECKING:
    from cnsapp.domain.agreement import Figure
    from db.session import Store

readings_cli = typer.Typer(no_args_is_help=True, help="Readings again: ask, list, withdraw.")
Kind = Annotated[str, typer.Option(help="second: by somebody else. self: by the same person.")]
By = Annotated[
    str | None, typer.Option("--by", help="Who reads; second: anybody when not named.")
]  # fmt: skip


def register(cli: typer.Typer) -> None:
    """Add these commands."""
    cli.command("agreement")(agreement)
    cli.add_typer(readings_cli, name="readings")
    readings_cli.command("ask")(ask)
    readings_cli.command("list")(list_readings)
    readings_cli.command("withdraw")(withdraw)
    cli.command("progress")(progress)


def agreement(
    project: ProjectName,
    second_only: Annotated[
        bool, typer.Option("--second-only", help="Only images with a blind second reading.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Say how far the people of a project agree: Cohen's and Fleiss's kappa with intervals."""
    from cnsapp.services import agreement as service

    store, project_id = _project(project)
    found = service.agreement(store, project_id=project_id, only_second=second_only)
    again = service.read_again(store, project_id=project_id, kind="self")
    names = _class_names(store, project_id)
    told = {
        "people": list(found.people),
        "n_images": found.n_images,
        "fleiss": _figure(found.fleiss),
        "per_class": {names.get(c, str(c)): _figure(f) for c, f in found.per_class.items()},
        "pairs": [
            {"first": p.first, "second": p.second, "n": p.n, "kappa": _figure(p.kappa),
             "agreement": _figure(p.percent)}
            for p in found.pairs
        ],
        "self": [
            {"annotator": a.first, "n": a.n, "unsure": a.unsure, "kappa": _figure(a.kappa),
             "agreement": _figure(a.percent)}
            for a in again
        ],
    }  # fmt: skip
    if not found.pairs:
        lines = ["No image was read by two people. Ask for second readings: cnsapp readings ask."]
    else:
        lines = [f"All together (Fleiss): {_said(found.fleiss)}"]
        lines += table(
            [
                (f"{p.first}, {p.second}", p.n, _said(p.kappa), _said(p.percent))
                for p in found.pairs
            ],
            ("people", "images", "kappa", "same class"),
        )
    for one in again:
        lines.append(f"{one.first} with themselves, {one.n} images again: {_said(one.kappa)}")
    answer(told, lines, as_json)


def ask(
    project: ProjectName,
    kind: Kind = "second",
    by: By = None,
    share: Annotated[
        float | None, typer.Option(help="Share of the images that can be asked for, 0 to 1.")
    ] = None,
    number: Annotated[int | None, typer.Option(help="Or so many images.")] = None,
    evenly: Annotated[
        bool, typer.Option("--evenly", help="As many of each class as there are.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Draws the images.")] = 0,
    annotator: Annotator = None,
    as_json: JsonFlag = False,
) -> None:
    """Ask that a share of the labelled images be read again, blindly."""
    from cnsapp.services import readings

    store, project_id = _project(project)
    asked_by = who(annotator)
    wanted = readings.Wanted(
        kind=kind,  # type: ignore[arg-type]  # refused in words when it is none
        by=by or (asked_by if kind == "self" else None),
        share=share,
        number=number,
        evenly=evenly,
        seed=seed,
    )
    n = readings.ask(store, project_id=project_id, asked_by=asked_by, wanted=wanted)
    answer({"asked": n}, [f"{n:,} images are to be read again."], as_json)


def list_readings(project: ProjectName, as_json: JsonFlag = False) -> None:
    """List which readings are asked for, by kind and reader."""
    from cnsapp.services import readings

    store, project_id = _project(project)
    found = readings.count_readings(store, project_id=project_id)
    lines = table(
        [(c.kind, c.wanted_from or "anybody", c.open, c.done) for c in found],
        ("kind", "reader", "open", "done"),
    )
    answer([c.as_json() for c in found], lines, as_json)


def withdraw(
    project: ProjectName,
    kind: Annotated[str | None, typer.Option(help="Only these: second or self.")] = None,
    by: Annotated[str | None, typer.Option("--by", help="Only those of this reader.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Take back the readings that nobody has given yet; what was answered stays."""
    from cnsapp.services import readings

    store, project_id = _project(project)
    n = readings.withdraw(store, project_id=project_id, kind=kind, by=by)  # type: ignore[arg-type]
    answer({"withdrawn": n}, [f"{n:,} readings are not asked for any more."], as_json)


def progress(project: ProjectName, annotator: Annotator = None, as_json: JsonFlag = False) -> None:
    """Say how far a project is, how fast people label, and what more labels would bring."""
    from cnsapp.services import progress as service

    store, project_id = _project(project)
    name = who(annotator)
    now = service.progress(store, project_id=project_id, annotator=name)
    curve = service.learning_curve(store, project_id=project_id)
    names = _class_names(store, project_id)
    per_class = {names.get(c, str(c)): n for c, n in now.per_class.items()}
    told: dict[str, Any] = {
        "images": now.images,
        "labelled": now.labelled,
        "unsure": now.unsure,
        "skipped": now.skipped,
        "readings_left": now.readings_left,
        "per_class": per_class,
        "groups": [asdict(group) for group in now.groups],
        "people": [
            {"name": p.name, "labelled": p.labelled, "per_minute": p.pace.per_minute,
             "last_at": p.last_at}
            for p in now.people
        ],
        "days": [{"day": d.day.isoformat(), "annotator": d.annotator, "n": d.n} for d in now.days],
        "seconds_left": [now.left.seconds, now.left.low, now.left.high] if now.left else None,
        "learning_curve": [
            {"n_labels": p.n_labels, "balanced_accuracy": p.value, "interval": p.interval}
            for p in curve.points
        ],
        "labels_for_one_point": curve.forecast.labels,
        "labels_for_one_point_reason": curve.forecast.reason,
    }  # fmt: skip
    answer(told, _progress_lines(now, curve, per_class), as_json)


def _progress_lines(now: Any, curve: Any, per_class: dict[str, int]) -> list[str]:
    lines = [
        f"{now.labelled:,} of {now.images:,} images labelled; {now.unsure:,} unsure, "
        f"{now.skipped:,} skipped; {now.readings_left:,} labels still to give."
    ]
    lines += table([(c, f"{n:,}") for c, n in per_class.items()], ("class", "images"))
    lines += table(
        [
            (p.name, f"{p.labelled:,}", f"{p.pace.per_minute:.1f}" if p.pace.per_minute else "-")
            for p in now.people
        ],
        ("person", "labels", "a minute"),
    )
    if now.left:
        low, middle, high = (s / 60 for s in (now.left.low, now.left.seconds, now.left.high))
        lines.append(f"At your pace about {middle:.0f} minutes ({low:.0f} to {high:.0f}).")
    if curve.forecast.labels:
        n, low, high = curve.forecast.labels
        lines.append(f"About {n:,} more labels for one more point ({low:,} to {high:,}).")
    else:
        lines.append(f"What more labels would bring cannot be told. {curve.forecast.reason}")
    return lines


def _project(name: str) -> tuple[Store, int]:
    from cnsapp.services.projects import get_project

    store = opened().store
    return store, get_project(store, project=name).id


def _class_names(store: Store, project_id: int) -> dict[int, str]:
    from cnsapp.services.projects import list_classes

    return {c.id: c.name for c in list_classes(store, project_id=project_id)}


def _figure(found: Figure) -> dict[str, Any]:
    interval: Sequence[float] | None = found.interval
    return {
        "value": found.value, "interval": interval, "interval_by": found.interval_by, "n": found.n,
        "reason": found.reason,
    }  # fmt: skip


def _said(found: Figure) -> str:
    if found.value is None:
        return found.reason
    if found.interval is None:
        return f"{found.value:.2f}"
    return f"{found.value:.2f} ({found.interval[0]:.2f} to {found.interval[1]:.2f})"
