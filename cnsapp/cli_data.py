"""Commands for projects, images and labels: demo, project, import, label."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from cnsapp.cli_io import Annotator, JsonFlag, Progress, ProjectName, answer, opened, table, who
from cnsapp.cli_slides import (
    MinTissue,
    Overlap,
    SlideUmPerPx,
    TileSize,
    UmPerPx,
    tile_settings,
)
from cnsapp.errors import CnsError

project_cli = typer.Typer(help="Make projects and list them.", no_args_is_help=True)


def register(cli: typer.Typer) -> None:
    """Add these commands."""
    cli.command("demo")(demo)
    cli.add_typer(project_cli, name="project")
    cli.command("import")(import_images)
    cli.command("label")(label)
    cli.command("import-project")(import_project)


def demo(as_json: JsonFlag = False) -> None:
    """Make the demo project: generated tissue-like images in several organ classes."""
    from cnsapp.services.demo import create_demo
    from cnsapp.services.projects import get_project
    from cnsapp.services.training import queue_features

    app, progress = opened(), Progress()
    try:
        project_id = create_demo(app, progress=progress.count)
    finally:
        progress.close()
    queue_features(app.store, project_id=project_id)
    view = get_project(app.store, project=project_id)
    answer(asdict(view), [f"“{view.name}”: {view.n_images} images"], as_json)


@project_cli.command("create")
def project_create(
    name: str,
    scheme: Annotated[
        str | None, typer.Option(help="A built-in set of classes: organ-systems.")
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Own classes: a,b,c")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a project with a built-in scheme or classes of its own."""
    from cnsapp.services.projects import create_project

    names = [part for part in classes.split(",") if part.strip()] if classes else None
    view = create_project(opened().store, name=name, classes=names, scheme=scheme)
    answer(asdict(view), [f"“{view.name}” with {view.n_classes} classes"], as_json)


@project_cli.command("list")
def project_list(as_json: JsonFlag = False) -> None:
    """List the projects, the newest first."""
    from cnsapp.services.projects import list_projects

    views = list_projects(opened().store)
    rows = [(v.id, v.name, v.n_images, v.n_labelled, v.n_classes) for v in views]
    lines = table(rows, ("id", "name", "images", "labelled", "classes"))
    answer([asdict(v) for v in views], lines if views else ["No project yet."], as_json)


def import_images(
    path: Path,
    project: ProjectName,
    labels: Annotated[
        str | None, typer.Option(help="Where labels come from: folders, or a CSV file.")
    ] = None,
    group_from: Annotated[
        str | None,
        typer.Option(help="Where groups (patients) come from: folder, a CSV column, a pattern."),
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="Leave the files where they are.")] = False,
    metadata: Annotated[
        str | None,
        typer.Option(help="A CSV with file or sha256; its other columns become filters."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read everything and report; change nothing.")
    ] = False,
    annotator: Annotated[str, typer.Option(help="Who gave these labels.")] = "import",
    tile_size: TileSize = None,
    um_per_px: UmPerPx = None,
    overlap: Overlap = None,
    min_tissue: MinTissue = None,
    slide_um_per_px: SlideUmPerPx = None,
    as_json: JsonFlag = False,
) -> None:
    """Import a folder, a zip or one file into a project; whole slides are cut into tiles."""
    from cnsapp.imaging.tiling import TileSettings
    from cnsapp.services.importing import check_folder, import_folder
    from cnsapp.services.projects import get_project
    from cnsapp.services.training import queue_features

    cut = (tile_size, um_per_px, overlap, min_tissue, slide_um_per_px)
    tiles = tile_settings(TileSettings(), *cut) if any(v is not None for v in cut) else None
    app, progress = opened(), Progress()
    view = get_project(app.store, project=project)
    act = check_folder if dry_run else partial(import_folder, annotator=annotator)
    try:
        report = act(
            app,
            project_id=view.id,
            path=path,
            labels=labels,
            group_from=group_from,
            metadata=metadata,
            link=link,
            tiles=tiles,
            progress=progress.count,
        )
    finally:
        progress.close()
    if report.imported and not dry_run:
        queue_features(app.store, project_id=view.id)
    done = "would import" if dry_run else "imported"
    lines = [
        f"Found {report.found}: {done} {report.imported}, there already {report.duplicates}, "
        f"skipped {len(report.skipped)}; labelled {report.labelled}."
    ]
    if report.slides:
        lines.append(f"Whole slides: {report.slides}; tiles cut from them: {report.tiles}.")
    lines += [f"  skipped {s.file}: {s.reason}" for s in report.skipped]
    if dry_run:
        lines += _problems(report.as_json())
    lines += [f"  {note}" for note in report.notes]
    answer(report.as_json(), lines, as_json)


def _problems(report: dict[str, Any]) -> list[str]:
    lines = [f"Groups: {report['n_groups']}; files without a group: {report['n_without_group']}."]
    if report["new_classes"]:
        lines.append(f"New classes: {', '.join(report['new_classes'])}.")
    for key, title in (
        ("rows_without_file", "Rows of the table without a file"),
        ("files_without_row", "Files without a row in the table"),
        ("name_clashes", "Names that clash"),
    ):
        if report[f"n_{key}"]:
            lines.append(f"{title}: {report[f'n_{key}']}")
            lines += [f"  {name}" for name in report[key][:20]]
    return lines


def label(
    project: ProjectName,
    csv: Annotated[Path, typer.Option(help="Columns: file or sha256, and label.")],
    annotator: Annotator = None,
    as_json: JsonFlag = False,
) -> None:
    """Label images from a table."""
    from cnsapp.services.labels import label_from_csv
    from cnsapp.services.projects import get_project

    app = opened()
    view = get_project(app.store, project=project)
    report = label_from_csv(app.store, project_id=view.id, csv=csv, annotator=who(annotator))
    facts = report.as_json()
    lines = [f"{key.replace('_', ' ')}: {_short(value)}" for key, value in facts.items()]
    answer(facts, lines, as_json)


def import_project(path: Path, _as_json: JsonFlag = False) -> None:
    """Bring in a project that another installation exported (not there yet)."""
    raise CnsError(
        f"Importing a whole project is not there yet; {path} was left as it is.",
        "",
        "Use `backup` and `restore` to move an installation, or `import` for its images.",
    )


def _short(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"{len(value)}" + (f" ({', '.join(map(str, value[:5]))})" if value else "")
    return str(value)
