"""The command that looks through the data for what may be wrong."""

from __future__ import annotations

from typing import Annotated

import typer

from cnsapp.cli_io import JsonFlag, ProjectName, answer, finish, opened, table, who

IMAGES = 50  # of a finding, in the JSON


def register(cli: typer.Typer) -> None:
    """Add this command."""
    cli.command("audit")(audit)


def audit(
    project: ProjectName,
    again: Annotated[
        bool, typer.Option("--again", help="Look anew, also where nothing changed.")
    ] = False,
    since: Annotated[
        str | None, typer.Option(help="Day from which images count as new: 2026-11-28.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Look for odd images, look-alikes with two labels, worse groups, shortcuts and drift."""
    from cnsapp.services.audit import audit_view, queue_audit
    from cnsapp.services.projects import get_project

    app = opened()
    view = get_project(app.store, project=project)
    found = audit_view(app.store, project_id=view.id)
    if again or since or found.made_at is None or found.is_stale:
        job_id = queue_audit(app.store, project_id=view.id, requested_by=who(None), since=since)
        finish(app, job_id)
        found = audit_view(app.store, project_id=view.id)
    facts = {
        "made_at": found.made_at,
        "changed": found.changed,
        "counts": found.counts,
        "findings": [
            {**f.as_json(), "image_ids": f.image_ids[:IMAGES]} for f in found.findings
        ],
        "checked": found.checked,
        "not_told": found.not_told,
    }  # fmt: skip
    rows = [(f.severity, f.title, f"{f.n_images:,}") for f in found.findings]
    lines = table(rows, ("", "what", "images")) if rows else ["Nothing was found."]
    for f in found.findings:
        lines += ["", f.title, f"  {f.sentence}", f"  {f.advice}"]
    if found.not_told:
        lines += ["", "What could not be told:"]
        lines += [f"  {said['part']}: {said['reason']}" for said in found.not_told]
    answer(facts, [*lines, *(f"Note: {line}" for line in found.changed)], as_json)
