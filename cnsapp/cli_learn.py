"""Commands for learning: train, jobs, cancel, predict, explain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnsapp.cli_io import JsonFlag, ProjectName, answer, finish, opened, say, table, who
from cnsapp.cli_slides import (
    MinTissue,
    Overlap,
    SlideUmPerPx,
    TileSize,
    UmPerPx,
    tile_settings,
)
from cnsapp.domain.map_methods import DEFAULT_METHOD

if TYPE_CHECKING:
    from cnsapp.services.jobs import JobView

ModelId = Annotated[int | None, typer.Option("--model", help="Model number; the current one.")]


def register(cli: typer.Typer) -> None:
    """Add these commands."""
    cli.command("train")(train)
    cli.command("jobs")(list_jobs)
    cli.command("cancel")(cancel)
    cli.command("pause")(pause)
    cli.command("resume")(resume)
    cli.command("predict")(predict)
    cli.command("explain")(explain)


def train(
    project: ProjectName,
    preset: Annotated[str, typer.Option(help="quick, full or best.")] = "quick",
    backbone: Annotated[str, typer.Option(help="The pretrained network.")] = "efficientnet_lite0",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting: key=value. May be repeated.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also when the same model is there already.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the model is there.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Train a model on the labels of a project."""
    from cnsapp.services.preflight import preflight
    from cnsapp.services.projects import get_project
    from cnsapp.services.training import start_training

    options = dict(_pair(text) for text in settings or [])
    app = opened()
    view = get_project(app.store, project=project)
    before = preflight(app, project_id=view.id, preset=preset, backbone=backbone, options=options)
    if before.same_as is not None and not again:
        raise before.nothing_new()
    job_id = start_training(
        app,
        project_id=view.id,
        preset=preset,
        backbone=backbone,
        options=options,
        requested_by=who(None),
    )
    for warning in before.warnings:
        say(f"Note: {warning}")
    if before.estimate is not None:
        say(before.estimate.sentence)
    facts: dict[str, Any] = {"job_id": job_id}
    lines = [f"Job {job_id} is queued. The app or `worker` runs it; `jobs` shows how far it is."]
    if wait:
        job = finish(app, job_id)
        facts |= {"state": job.state, "paused": job.paused, **job.result}
        lines = [] if job.is_paused else _scores(job.result)
    answer(facts, lines, as_json)


def list_jobs(
    project: Annotated[str | None, typer.Option("--project", help="Only of this project.")] = None,
    active: Annotated[bool, typer.Option("--active", help="Only queued and running.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List jobs, the newest first."""
    from cnsapp.services import jobs
    from cnsapp.services.projects import get_project

    app = opened()
    project_id = None if project is None else get_project(app.store, project=project).id
    views = jobs.list_jobs(app.store, project_id=project_id, active_only=active)
    facts = [
        {
            "id": job.id,
            "project_id": job.project_id,
            "kind": job.kind,
            "state": job.state,
            "paused": job.paused,
            "n_ahead": job.n_ahead,
            "progress": job.progress,
            "message": job.message,
            "error": job.error,
            "created_at": job.created_at,
            "finished_at": job.finished_at,
        }
        for job in views
    ]
    rows = [(j.id, j.kind, _state(j), f"{j.progress:.0%}", j.error or j.message) for j in views]
    lines = table(rows, ("id", "kind", "state", "done", "")) if rows else ["No jobs."]
    answer(facts, lines, as_json)


def cancel(job_id: int, as_json: JsonFlag = False) -> None:
    """Stop a job; what it had finished before is kept."""
    from cnsapp.services import jobs

    job = jobs.cancel_job(opened().store, job_id=job_id)
    stopping = "is stopping" if job.state == "running" else f"is {job.state}"
    answer({"job_id": job.id, "state": job.state}, [f"Job {job.id} {stopping}."], as_json)


def pause(job_id: int, as_json: JsonFlag = False) -> None:
    """Let a training wait: it keeps its finished epochs; `resume` lets it go on."""
    from cnsapp.services import jobs

    job = jobs.pause_job(opened().store, job_id=job_id)
    line = f"Job {job.id} is {job.state}: there is nothing to pause."
    if job.is_active:
        line = f"Job {job.id} is stopping." if job.cancel_requested else f"Job {job.id} is pausing."
        line = f"Job {job.id} is paused." if job.is_paused else line
    answer({"job_id": job.id, "state": job.state, "paused": job.paused}, [line], as_json)


def resume(job_id: int, as_json: JsonFlag = False) -> None:
    """Let a paused job go on from its last finished epoch, in its turn."""
    from cnsapp.services import jobs

    job = jobs.resume_job(opened().store, job_id=job_id)
    ahead = f"; {job.n_ahead} go before it" if job.n_ahead else ""
    line = f"Job {job.id} goes on{ahead}." if job.is_active else f"Job {job.id} is {job.state}."
    answer({"job_id": job.id, "state": job.state, "paused": job.paused}, [line], as_json)


def predict(
    path: Path,
    project: ProjectName,
    out_file: Annotated[Path, typer.Option("--out", help="The CSV to write.")],
    model: ModelId = None,
    tile_size: TileSize = None,
    um_per_px: UmPerPx = None,
    overlap: Overlap = None,
    min_tissue: MinTissue = None,
    slide_um_per_px: SlideUmPerPx = None,
    as_json: JsonFlag = False,
) -> None:
    """Apply a model to a folder, a zip, an image or a whole slide; write a table of predictions.

    A slide is cut as the project's own slides were, where no option says otherwise.
    """
    from cnsapp.services.exports import copy_whole
    from cnsapp.services.predicting import start_prediction
    from cnsapp.services.projects import get_project
    from cnsapp.services.slides import latest_settings

    app = opened()
    view = get_project(app.store, project=project)
    tiles = tile_settings(
        latest_settings(app.store, project_id=view.id),
        tile_size, um_per_px, overlap, min_tissue, slide_um_per_px,
    )  # fmt: skip
    job_id = start_prediction(
        app, project_id=view.id, path=path, model_id=model, requested_by=who(None), tiles=tiles
    )
    job = finish(app, job_id)
    copy_whole(app.store.path(str(job.result["csv"])), out_file.absolute())
    failed = job.result.get("failed", [])
    facts = {"job_id": job_id, "out": str(out_file), **job.result}
    lines = [f"{job.result['n']} predictions in {out_file}"]
    lines += [f"  not read {f['file']}: {f['reason']}" for f in failed]
    answer(facts, lines, as_json)


def explain(
    file: Path,
    project: ProjectName,
    out_file: Annotated[Path, typer.Option("--out", help="The PNG to write.")],
    model: ModelId = None,
    method: Annotated[str, typer.Option(help="The kind of map.")] = DEFAULT_METHOD,
    target: Annotated[
        str | None, typer.Option(help="Class whose evidence is shown; the predicted one.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the method: key=value.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Hold the map against random maps and weights.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show what a model looked at in an image: a map over the image, as PNG."""
    from cnsapp.services.explaining import explain_file
    from cnsapp.services.exports import copy_whole
    from cnsapp.services.models import current_model
    from cnsapp.services.projects import get_project

    app = opened()
    view = get_project(app.store, project=project)
    model_id = model if model is not None else current_model(app.store, project_id=view.id).id
    job_id = explain_file(
        app,
        project_id=view.id,
        path=file,
        model_id=model_id,
        method=method,
        target=target,
        settings=dict(_pair(text) for text in settings or []),
        checks=check,
        requested_by=who(None),
    )
    job = finish(app, job_id)
    png = app.store.path(str(job.result["png"]))
    copy_whole(png, out_file.absolute())
    png.unlink(missing_ok=True)
    facts = job.result["facts"]
    lines = [f"{out_file}: {facts['class']} ({facts['probability']:.2f})"]
    lines += facts["notes"]
    lines += [facts[part]["verdict"] for part in ("faithfulness", "randomisation") if check]
    answer({"job_id": job_id, "out": str(out_file), **facts}, lines, as_json)


def _pair(text: str) -> tuple[str, str]:
    key, found, value = text.partition("=")
    if not found or not key.strip():
        raise typer.BadParameter(f"“{text}” is not key=value.", param_hint="--set")
    return key.strip(), value.strip()


def _state(job: JobView) -> str:
    if job.paused and job.is_active:
        return "paused" if job.is_paused else "pausing"
    return f"queued, {job.n_ahead} ahead" if job.n_ahead else job.state


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _scores(result: dict[str, Any]) -> list[str]:
    metrics = result.get("metrics", {})
    score = f"balanced accuracy {_figure(metrics.get('balanced_accuracy'))}"
    interval = metrics.get("balanced_accuracy_interval")
    if interval:
        score += f" (95 % interval {interval[0]:.3f} to {interval[1]:.3f})"
    lines = [
        f"Model {result.get('model_id')}: {score}, "
        f"{metrics.get('n')} images, {metrics.get('scheme', '')}"
    ]
    lines += [
        f"  {c['name']}: recall {c['recall']:.3f} (n = {c['n']})"
        for c in metrics.get("per_class", [])
        if c.get("recall") is not None
    ]
    return lines + [f"Note: {warning}" for warning in metrics.get("warnings", [])]
