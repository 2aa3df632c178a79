"""Commands that take work elsewhere: export labels, dataset, model; report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnsapp.cli_io import JsonFlag, Progress, ProjectName, answer, opened
from cnsapp.errors import CnsError

export_cli = typer.Typer(help="Export labels, images or a model.", no_args_is_help=True)
Out = Annotated[Path, typer.Option("--out", help="File or folder to write.")]


def register(cli: typer.Typer) -> None:
    """Add these commands."""
    cli.add_typer(export_cli, name="export")
    cli.command("report")(report)


@export_cli.command("labels")
def labels(project: ProjectName, out_file: Out, as_json: JsonFlag = False) -> None:
    """Write the current labels as CSV: file, sha256, label, annotator, created_at, group."""
    from cnsapp.services.exports import export_labels
    from cnsapp.services.projects import get_project

    app = opened()
    view = get_project(app.store, project=project)
    done = export_labels(app, project_id=view.id, out=out_file)
    answer(done.as_json(), [f"{done.n} labels in {done.path}"], as_json)


@export_cli.command("dataset")
def dataset(
    project: ProjectName,
    out_file: Out,
    keep_metadata: Annotated[
        bool,
        typer.Option("--keep-metadata", help="Copy the files with place, owner, dates and all."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Copy the labelled images into one folder a class, with labels.csv beside them.

    What the files tell of places, people and devices is left out of the copies; the pixels stay as
    they are. The column sha256 is of the file that was imported.
    """
    from cnsapp.services.exports import export_dataset, removed_words
    from cnsapp.services.projects import get_project

    app, progress = opened(), Progress()
    view = get_project(app.store, project=project)
    try:
        done = export_dataset(
            app,
            project_id=view.id,
            out=out_file.absolute(),
            keep_metadata=keep_metadata,
            progress=lambda n, name: progress.count(n, view.n_labelled, name),
        )
    finally:
        progress.close()
    missing = f" ({done.n_missing} files are missing)" if done.n_missing else ""
    lines = [f"{done.n} images in {done.path}{missing}"]
    if done.removed:
        lines.append(f"Left out of the copies: {removed_words(done.removed)}.")
    if keep_metadata:
        lines.append("The copies hold all that the files tell of places, people and devices.")
    lines += [f"  not exported {f['file']}: {f['reason']}" for f in done.refused]
    answer(done.as_json(), lines, as_json)


@export_cli.command("model")
def model(
    out_file: Out,
    model_id: Annotated[int | None, typer.Option("--model", help="Model number.")] = None,
    project: Annotated[
        str | None, typer.Option("--project", help="Its current model, when none is named.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Copy a model's file (safetensors, with its description inside)."""
    from cnsapp.services.exports import export_model
    from cnsapp.services.models import current_model
    from cnsapp.services.projects import get_project

    app = opened()
    if model_id is None:
        if project is None:
            raise typer.BadParameter("Name --model or --project.")
        model_id = current_model(
            app.store, project_id=get_project(app.store, project=project).id
        ).id
    done = export_model(app, model_id=model_id, out=out_file)
    answer(done.as_json(), [done.path], as_json)


@export_cli.command("project")
def project(
    project: ProjectName,
    out_file: Out,
    _as_json: JsonFlag = False,
) -> None:
    """Write a whole project into one file (not there yet)."""
    raise CnsError(
        f"Exporting a whole project is not there yet; “{project}” was not written to {out_file}.",
        "",
        "Use `backup` for everything, or `export labels` and `export dataset` for its parts.",
    )


def report(
    model_id: Annotated[int, typer.Option("--model", help="Model number.")],
    out_file: Out,
    _as_json: JsonFlag = False,
) -> None:
    """Write a report of a model (not there yet)."""
    raise CnsError(
        f"The report of model {model_id} is not there yet; {out_file} was not written.",
        "",
        "The figures stand on the Review page and in `models --project NAME --json`.",
    )
