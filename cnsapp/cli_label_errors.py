"""Command for labels that are probably wrong: label-errors."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from cnsapp.cli_io import JsonFlag, ProjectName, answer, opened, table

if TYPE_CHECKING:
    from cnsapp.services.label_errors import Show, Summary, Suspect, SuspectPage
    from db.session import Store


def register(cli: typer.Typer) -> None:
    """Add these commands."""
    cli.command("label-errors")(label_errors)


def label_errors(
    project: ProjectName,
    model: Annotated[
        int | None, typer.Option("--model", help="Model number; the current one.")
    ] = None,
    labelled: Annotated[
        str | None, typer.Option("--labelled", help="Only labels of this class.")
    ] = None,
    looks_like: Annotated[
        str | None, typer.Option("--looks-like", help="Only where this class is suggested.")
    ] = None,
    show: Annotated[
        str, typer.Option("--show", help="open, decided (confirmed or corrected), or all.")
    ] = "open",
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 50,
    after: Annotated[
        int | None, typer.Option(help="Go on behind this image number of the list.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """List labels that are probably wrong, with reasons, and how many more are expected."""
    from cnsapp.services.label_errors import list_suspects, place_in_list, summary
    from cnsapp.services.models import current_model
    from cnsapp.services.projects import get_project

    store = opened().store
    view = get_project(store, project=project)
    model_id = model if model is not None else current_model(store, project_id=view.id).id
    total = summary(store, model_id=model_id, project_id=view.id)
    page = list_suspects(
        store,
        model_id=model_id,
        label=_class_id(store, view.id, labelled),
        suggested=_class_id(store, view.id, looks_like),
        show=cast("Show", show),
        after=None if after is None else place_in_list(store, model_id=model_id, image_id=after),
        limit=limit,
    )
    answer(_facts(total, page), _lines(total, page), as_json)


def _class_id(store: Store, project_id: int, name: str | None) -> int | None:
    from cnsapp.services.classes import find_class

    return None if name is None else find_class(store, project_id=project_id, name=name).id


def _lines(total: Summary, page: SuspectPage) -> list[str]:
    rows = [
        (
            i.image.id, i.image.name, i.label, i.suggested, f"{i.score:.2f}",
            "sure" if i.flagged else "less sure", i.decision, i.reason,
        )
        for i in page.items
    ]  # fmt: skip
    head = ("image", "file", "labelled", "looks like", "score", "", "decided", "why")
    called = "called wrong" if total.doubt else "probably wrong"
    lines = [
        f"Model {total.model_id}, {total.model_name}: {total.n_judged:,} labels compared, "
        f"{total.n_flagged:,} of them are {called}, {total.n_listed - total.n_flagged:,} more are "
        "doubtful.",
        total.in_words,
        *([] if total.doubt else [total.assumes]),
        *(f"Note: {note}" for note in total.notes if note != total.doubt),  # that is said above
        *(table(rows, head) if rows else ["Nothing to show."]),
    ]
    if page.next_after is not None:
        lines.append(f"{page.n:,} in all; --after {page.next_after[1]} goes on.")
    return lines


def _facts(total: Summary, page: SuspectPage) -> dict[str, Any]:
    facts = asdict(total)
    facts["progress"] |= {"enough": total.progress.enough}
    return facts | {
        "n": page.n,
        "next_after": None if page.next_after is None else page.next_after[1],
        "label_errors": [_row(item) for item in page.items],
    }


def _row(item: Suspect) -> dict[str, Any]:
    facts = {key: value for key, value in asdict(item).items() if key != "image"}
    return {
        "image_id": item.image.id,
        "file": item.image.name,
        "sha256": item.image.sha256,
        "class_id": item.image.class_id,
        **facts,
    }
