"""`backbones`: which networks can be trained here, and what the others lack."""

from __future__ import annotations

import typer

from cnsapp.cli_io import JsonFlag, answer, opened, table


def register(cli: typer.Typer) -> None:
    """Add the command."""
    cli.command()(backbones)


def backbones(as_json: JsonFlag = False) -> None:
    """List the pretrained networks: whether their weights are here, and what to put where."""
    from cnsapp.services.backbones import BackboneView, list_backbones, searched_folders

    store = opened().store
    views = list_backbones(store)

    def row(view: BackboneView) -> list[object]:
        facts = view.facts
        size = f"{facts.input_size} px" if facts and facts.input_size else "its own"
        licence = facts.licence.partition(" (")[0] if facts else "–"
        return [
            view.id, view.title, "ready" if view.available else "no", size,
            facts.cost if facts else "–", licence, str(view.path or ""),
        ]  # fmt: skip

    lines = table(
        [row(view) for view in views],
        ["id", "title", "here", "input", "cost", "licence", "weights"],
    )
    lines += ["", "Weights are looked for in:", *(f"  {f}" for f in searched_folders(store))]
    lacking = [view for view in views if not view.available]
    to_fetch = [view.facts for view in lacking if view.facts and view.facts.url]
    if to_fetch:
        lines += [
            "",
            f"The app downloads nothing by itself. Put into {searched_folders(store)[0]}:",
        ]
        lines += [f"  {f.id}: {f.url} ({f.megabytes} MB)" for f in to_fetch]
    others = [view for view in lacking if not (view.facts and view.facts.url)]
    if others:
        lines += ["", "Not ready:", *(f"  {v.id}: {v.problem} {v.remedy}" for v in others)]
    answer([view.as_json() for view in views], lines, as_json)
