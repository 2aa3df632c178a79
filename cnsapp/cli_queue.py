"""The command for what comes next: queue."""

from __future__ import annotations

from typing import Annotated

import typer

from cnsapp.cli_io import Annotator, JsonFlag, ProjectName, answer, opened, say, table, who


def register(cli: typer.Typer) -> None:
    """Add this command."""
    cli.command("queue")(queue)


def queue(
    project: ProjectName,
    strategy: Annotated[
        str,
        typer.Option(
            help="smart, in-order, random, look-alikes, disagree, model, unsure, skipped, second "
            "or self."
        ),
    ] = "smart",
    like_class: Annotated[
        str | None, typer.Option("--class", help="The class whose look-alikes are wanted.")
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, max=10_000, help="How many are listed.")] = 20,
    annotator: Annotator = None,
    as_json: JsonFlag = False,
) -> None:
    """List the images that would be labelled next, one by one, and why; takes none of them."""
    from cnsapp.errors import NotFoundError
    from cnsapp.services.projects import get_project, list_classes
    from cnsapp.services.queueing import Wish, look_ahead

    app = opened()
    view = get_project(app.store, project=project)
    class_id = None
    if like_class is not None:
        found = [c.id for c in list_classes(app.store, project_id=view.id) if c.name == like_class]
        if not found:
            raise NotFoundError(f"The project has no class “{like_class}”.")
        class_id = found[0]
    wish = Wish(view.id, who(annotator), strategy, class_id)
    handed = look_ahead(app.store, wish, n=n)
    facts = [
        {"image_id": i.id, "file": i.name, "reason": i.reason, "sha256": i.sha256}
        for i in handed.images
    ]
    if handed.note:
        say(handed.note)
    rows = [(fact["image_id"], fact["reason"], fact["file"]) for fact in facts]
    lines = table(rows, ("image", "reason", "file")) if rows else ["Nothing is left to label."]
    answer(facts, lines, as_json)
