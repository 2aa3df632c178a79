"""The command for how a project labels: labelling."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cnsapp.cli_io import JsonFlag, ProjectName, answer, opened


def register(cli: typer.Typer) -> None:
    """Add this command."""
    cli.command("labelling")(labelling)


def labelling(
    project: ProjectName,
    rule: Annotated[
        str | None, typer.Option(help="Whose word counts: latest, or majority.")
    ] = None,
    readers: Annotated[
        int | None, typer.Option(help="People who must read an image (majority).")
    ] = None,
    suggest_every: Annotated[
        int | None, typer.Option(help="New labels between two refreshes; 0: only when asked.")
    ] = None,
    random_share: Annotated[
        float | None, typer.Option(help="Share of random images in the queue, 0 to 0.5.")
    ] = None,
    blind: Annotated[
        bool | None, typer.Option("--blind/--sighted", help="Hide all opinions while labelling.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show or change how a project labels; without options it only shows."""
    from cnsapp.domain.consensus import ConsensusRule
    from cnsapp.services import label_settings
    from cnsapp.services.projects import get_project

    store = opened().store
    view = get_project(store, project=project)
    now = label_settings.read_settings(store, project_id=view.id)
    wishes = {"suggest_every": suggest_every, "random_share": random_share, "blind": blind}
    changes: dict[str, Any] = {name: value for name, value in wishes.items() if value is not None}
    if rule is not None or readers is not None:
        kind: Any = rule or now.rule.kind
        changes["rule"] = ConsensusRule(kind, readers or now.rule.readers)
    if changes:
        now = label_settings.change_settings(store, project_id=view.id, **changes)
    several = "the latest label counts"
    if now.rule.kind == "majority":
        several = f"a majority of {now.rule.readers} readers decides"
    refresh = f"after {now.suggest_every} labels" if now.suggest_every else "when asked"
    lines = [
        f"Several people on one image: {several}.",
        f"Suggestions are made again {refresh}.",
        f"Random share of the queue: {now.random_share:.0%}.",
        f"Opinions are {'hidden' if now.blind else 'shown'} while labelling.",
    ]
    told = {
        "rule": now.rule.kind,
        "readers": now.rule.readers,
        "suggest_every": now.suggest_every,
        "random_share": now.random_share,
        "blind": now.blind,
    }
    answer(told, lines, as_json)
