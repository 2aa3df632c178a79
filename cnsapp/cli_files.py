"""Commands for the files behind the images: check-files, relink, watch, metadata."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cnsapp.cli_io import Annotator, JsonFlag, Progress, ProjectName, answer, opened, who


def register(cli: typer.Typer) -> None:
    """Add these commands."""
    cli.command("check-files")(check_files)
    cli.command("relink")(relink)
    cli.command("watch")(watch)
    cli.command("metadata")(metadata)


def check_files(
    project: ProjectName,
    full: Annotated[
        bool, typer.Option("--full", help="Read every file wholly and compare its SHA-256.")
    ] = False,
    annotator: Annotator = None,
    as_json: JsonFlag = False,
) -> None:
    """Check that the files of a project are there and unchanged; mark those that are not."""
    from cnsapp.services import file_check
    from cnsapp.services.projects import get_project

    app, progress = opened(), Progress()
    view = get_project(app.store, project=project)
    try:
        report = file_check.check_files(
            app, project_id=view.id, full=full, who=who(annotator), progress=progress.count
        )
    finally:
        progress.close()
    lines = [
        f"Checked {report.checked}: {report.ok} fine, {report.missing} missing, "
        f"{report.changed} changed; {report.found} came back, {report.newly_marked} newly marked."
    ]
    problems = file_check.list_problems(app.store, project_id=view.id)
    lines += [f"  {p.status} {p.name} ({p.path}). {p.remedy}" for p in problems]
    if report.missing + report.changed > len(problems):
        lines.append(f"  and {report.missing + report.changed - len(problems)} more")
    answer(report.as_json(), lines, as_json)


def relink(
    project: ProjectName,
    folder: Annotated[Path, typer.Option(help="Where the moved files lie now, or above it.")],
    annotator: Annotator = None,
    as_json: JsonFlag = False,
) -> None:
    """Find linked files that were moved or renamed, by their content, and link them anew."""
    from cnsapp.services import relinking
    from cnsapp.services.projects import get_project

    app, progress = opened(), Progress()
    view = get_project(app.store, project=project)
    try:
        report = relinking.relink(
            app,
            project_id=view.id,
            folder=folder,
            who=who(annotator),
            progress=progress.count,
        )
    finally:
        progress.close()
    line = (
        f"{report.found} of {report.lost} lost images found among {report.looked_at} files; "
        f"{report.still_lost} still lost."
    )
    answer(report.as_json(), [line], as_json)


def watch(
    project: ProjectName,
    folder: Annotated[
        Path | None, typer.Option(help="The folder to watch; without it, list them.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Where labels come from: folders, or a CSV file.")
    ] = None,
    group_from: Annotated[
        str | None, typer.Option(help="Where groups come from: folder, a CSV column, a pattern.")
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="Leave the files where they are.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Watch the folder no longer.")] = False,
    annotator: Annotator = None,
    as_json: JsonFlag = False,
) -> None:
    """Import new files of a folder as they appear; the worker looks every few seconds."""
    from cnsapp.services import watching
    from cnsapp.services.projects import get_project

    app = opened()
    view = get_project(app.store, project=project)
    if folder is None:
        found = watching.list_watched(app.store, project_id=view.id)
    elif stop:
        found = [watching.stop_watching(app.store, project_id=view.id, folder=str(folder))]
    else:
        found = [
            watching.watch_folder(
                app,
                project_id=view.id,
                folder=folder,
                labels=labels,
                group_from=group_from,
                link=link,
                annotator=who(annotator),
            )
        ]
    lines = [_watched(one) for one in found] or ["No folder is watched."]
    if folder is not None and not stop:
        lines.append(
            f"The worker looks every {app.settings.watch_seconds:g} s; it runs with the app, or "
            "as `python -m cnsapp worker`."
        )
    answer([asdict(one) for one in found] if folder is None else asdict(found[0]), lines, as_json)


def _watched(view: object) -> str:
    from cnsapp.services.watching import WatchedView, in_words

    assert isinstance(view, WatchedView)
    state = "watched" if view.active else "watched no longer"
    looked = view.looked_at.isoformat(timespec="seconds") if view.looked_at else "not yet"
    line = (
        f"{view.path}: {state} ({in_words(view)}); last look {looked}, "
        f"{view.imported} imported, {view.n_waiting} waiting"
    )
    return f"{line}. {view.problem}" if view.problem else line


def metadata(
    project: ProjectName,
    csv: Annotated[Path, typer.Option(help="Columns: file or sha256, and any others.")],
    group_from: Annotated[
        str | None, typer.Option(help="The column that holds the group (patient, slide).")
    ] = None,
    annotator: Annotator = None,
    as_json: JsonFlag = False,
) -> None:
    """Give images what a table says of them; each column becomes a filter."""
    from cnsapp.services.metadata import add_metadata
    from cnsapp.services.projects import get_project

    app = opened()
    view = get_project(app.store, project=project)
    report = add_metadata(
        app.store, project_id=view.id, csv=csv, group_from=group_from, who=who(annotator)
    )
    lines = [
        f"{report.rows} rows, {report.images} images: {', '.join(report.columns) or 'no column'}; "
        f"{report.grouped} given a group."
    ]
    lines += [f"  no image {name}" for name in report.unknown_files[:50]]
    answer(report.as_json(), lines, as_json)
