"""Commands for suggestions: suggest, accept."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cnsapp.cli_io import Annotator, JsonFlag, ProjectName, answer, finish, opened, table, who


def register(cli: typer.Typer) -> None:
    """Add these commands."""
    cli.command("suggest")(suggest)
    cli.command("accept")(accept)


def suggest(
    project: ProjectName,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait and say how good they are.")
    ] = True,
    as_json: JsonFlag = False,
) -> None:
    """Make the suggestions of a project anew and wait; say how good they are."""
    from cnsapp.services import suggestion_runs
    from cnsapp.services.projects import get_project

    app = opened()
    view = get_project(app.store, project=project)
    job_id = suggestion_runs.refresh(app.store, project_id=view.id, requested_by=who(None))
    if not wait:
        answer({"job_id": job_id}, [f"Job {job_id} makes them."], as_json)
        return
    result = finish(app, job_id).result
    run = suggestion_runs.newest_run(app.store, project_id=view.id)
    facts: dict[str, Any] = {"job_id": job_id, **result}
    if run is None or not result.get("suggested"):
        answer(facts, [str(result.get("reason", "Nothing could be suggested."))], as_json)
        return
    figures = run.figures
    facts |= {"figures": figures, "seconds": round(run.seconds, 2)}
    right, ends = figures["accuracy"], figures["accuracy_interval"]
    told = "no label could be held out" if right is None else (
        f"right in {right:.0%} of {figures['n']} held-out images ({ends[0]:.0%} to {ends[1]:.0%})"
    )  # fmt: skip
    lines = [f"{run.n_images:,} images, from {run.n_labels:,} labels: {told}."]
    rows = [
        (
            f"{row['threshold']:.0%}",
            row["n_open"],
            "–" if row["error"] is None else f"{row['error']:.1%}",
            row["n"],
        )
        for row in figures["thresholds"]
    ]
    lines += table(rows, ("from", "without a label", "wrong, held out", "n"))
    answer(facts, lines, as_json)


def accept(
    project: ProjectName,
    above: Annotated[float, typer.Option(help="Lowest confidence that is accepted, 0.5 to 1.")],
    annotator: Annotator = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be labelled.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Label the images without a label whose suggestion is sure enough, each as suggested."""
    from cnsapp.services import suggestions
    from cnsapp.services.classes import list_classes
    from cnsapp.services.projects import get_project

    store = opened().store
    view = get_project(store, project=project)
    offered = suggestions.offer(store, project_id=view.id, threshold=above)
    names = {c.id: c.name for c in list_classes(store, project_id=view.id)}
    facts: dict[str, Any] = {
        "n": len(offered.image_ids),
        "per_class": {names.get(c, str(c)): n for c, n in offered.per_class.items()},
        "held_out": offered.n,
        "held_out_wrong": offered.wrong,
        "expected_wrong": offered.expected,
        "interval": offered.interval,
        "stored": 0,
    }
    expected = "nobody can say how many wrongly: no held-out image was so sure"
    if offered.expected is not None and offered.interval is not None:
        low, high = (round(share * len(offered.image_ids)) for share in offered.interval)
        expected = (
            f"about {round(offered.expected)} wrongly ({low} to {high}; "
            f"{offered.wrong} of {offered.n} held-out images so sure were wrong)"
        )
    verb = "would be" if dry_run else "are"
    if not dry_run:
        receipt = suggestions.accept(store, offered, project_id=view.id, annotator=who(annotator))
        facts |= {"stored": receipt.stored, "action": receipt.action}
    answer(facts, [f"{len(offered.image_ids):,} images {verb} labelled, {expected}."], as_json)
