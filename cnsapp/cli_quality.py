"""Commands for the quality of images: quality, exclude."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnsapp.cli_io import Annotator, JsonFlag, ProjectName, answer, finish, opened, table, who


def register(cli: typer.Typer) -> None:
    """Add these commands."""
    cli.command("quality")(quality)
    cli.command("exclude")(exclude)


def quality(
    project: ProjectName,
    scan: Annotated[
        bool, typer.Option("--scan", help="First look at the images that were not looked at yet.")
    ] = False,
    limit: Annotated[int, typer.Option(min=0, help="Pairs listed of each kind.")] = 100,
    as_json: JsonFlag = False,
) -> None:
    """List duplicates, blurred, empty and odd images of a project."""
    from cnsapp.services import quality as service
    from cnsapp.services.projects import get_project
    from cnsapp.services.training import queue_features

    app = opened()
    view = get_project(app.store, project=project)
    if scan:
        job_id = queue_features(app.store, project_id=view.id)
        if job_id is not None:
            finish(app, job_id)
    found = service.overview(app.store, project_id=view.id)
    pairs = [
        {
            "kind": kind,
            "file_a": pair.a.item.name,
            "file_b": pair.b.item.name,
            "similarity": pair.similarity,
        }
        for kind in (service.EXACT, service.NEAR)
        for pair in service.list_pairs(app.store, project_id=view.id, kind=kind, limit=limit)
    ]
    facts = found.as_json() | {"pairs": pairs}
    rows = [(kind, n) for kind, n in found.counts.items()]
    lines = [
        f"{found.measured:,} of {found.images:,} images looked at, {found.excluded:,} excluded"
    ]
    lines += table(rows, ("kind", "n"))
    lines += [f"{p['similarity']:.3f}  {p['file_a']}  {p['file_b']}" for p in pairs]
    lines += [doubt.sentence for doubt in found.doubts]
    answer(facts, lines, as_json)


def exclude(
    project: ProjectName,
    csv: Annotated[Path, typer.Option(help="A column: file or sha256.")],
    reason: Annotated[str, typer.Option(help="Why; kept with the event.")] = "",
    back: Annotated[
        bool, typer.Option("--restore", help="Take these images back into use instead.")
    ] = False,
    annotator: Annotator = None,
    as_json: JsonFlag = False,
) -> None:
    """Take images out of use, or back in; labels and models stay as they are."""
    from cnsapp.services.exclusion import change_from_csv
    from cnsapp.services.projects import get_project

    app = opened()
    view = get_project(app.store, project=project)
    report = change_from_csv(
        app.store, project_id=view.id, csv=csv, who=who(annotator), reason=reason, back=back
    )
    verb = "restored" if back else "excluded"
    lines = [f"{report.changed:,} {verb}, {report.unchanged:,} were so already."]
    lines += [f"  not in the project: {name}" for name in report.unknown_files]
    answer(report.as_json(), lines, as_json)
