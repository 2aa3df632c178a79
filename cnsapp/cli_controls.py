"""The command that checks a model against simpler methods."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cnsapp.cli_io import JsonFlag, ProjectName, answer, finish, opened, table, who


def register(cli: typer.Typer) -> None:
    """Add this command."""
    cli.command("controls")(controls)


def controls(
    project: ProjectName,
    model: Annotated[
        int | None, typer.Option("--model", help="Model number; the current one.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Compute it anew.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Compare a model with simpler methods on the same images, and try other stains on it."""
    from cnsapp.services.controls import TITLES, controls_view, queue_controls
    from cnsapp.services.models import current_model, get_model
    from cnsapp.services.projects import get_project

    app = opened()
    view = get_project(app.store, project=project)
    chosen = (
        current_model(app.store, project_id=view.id)
        if model is None
        else get_model(app.store, model_id=model, project_id=view.id)
    )
    found = controls_view(app.store, model=chosen)
    while again or found.state != "done":
        job_id = queue_controls(app.store, model_id=chosen.id, requested_by=who(None), again=again)
        finish(app, job_id)
        again = False
        chosen = get_model(app.store, model_id=chosen.id)
        found = controls_view(app.store, model=chosen)
    facts = {
        "model_id": chosen.id,
        "balanced_accuracy": chosen.metrics.get("balanced_accuracy"),
        "interval": chosen.metrics.get("balanced_accuracy_interval"),
        "n": chosen.metrics.get("n"),
        "controls": found.detail,
        "stain_shift": found.stain_shift,
        "warnings": found.warnings,
        "notes": found.notes,
    }
    own = {"balanced_accuracy": facts["balanced_accuracy"], "interval": facts["interval"],
           "n": facts["n"]}  # fmt: skip
    rows = [_row(f"{chosen.name} (this model)", own)]
    rows += [_row(TITLES[key], row) for key, row in found.detail.items()]
    lines = table(rows, ("", "balanced accuracy", "95 % interval", "n", "the model less this"))
    lines += [*_curves(found.stain_shift), *(f"Note: {w}" for w in [*found.warnings, *found.notes])]
    answer(facts, lines, as_json)


def _row(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    interval, apart = row.get("interval"), row.get("difference_interval")
    less = "" if row.get("difference") is None else f"{row['difference']:+.3f}"
    return (
        name,
        "undefined" if row["balanced_accuracy"] is None else f"{row['balanced_accuracy']:.3f}",
        f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "",
        str(row["n"]),
        f"{less} ({apart[0]:+.3f} to {apart[1]:+.3f})" if apart else less,
    )


def _curves(shift: dict[str, Any] | None) -> list[str]:
    if not shift:
        return []
    if shift.get("why_not"):
        return [str(shift["why_not"])]
    lines = [f"Under other stains and light ({shift['n']} images), strength 0 to 1:"]
    for kind, points in shift["curves"].items():
        values = (
            "undefined" if p["balanced_accuracy"] is None else f"{p['balanced_accuracy']:.3f}"
            for p in points
        )
        lines.append(f"  {kind}: {', '.join(values)}")
    return lines
