"""Command for the figures of a model: evaluate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from cnsapp.cli_io import JsonFlag, ProjectName, answer, opened, table, who
from cnsapp.errors import CnsError, InvalidInputError

if TYPE_CHECKING:
    from cnsapp.services.evaluation import Evaluated, Part
    from cnsapp.services.evaluation_tables import Figure
    from cnsapp.services.review import Truth


def register(cli: typer.Typer) -> None:
    """Add these commands."""
    cli.command("evaluate")(evaluate)


def evaluate(
    project: ProjectName,
    model: Annotated[
        int | None, typer.Option("--model", help="Model number; the current one.")
    ] = None,
    part: Annotated[
        str,
        typer.Option(
            help="fold: images held out in training; test: the locked test set (a look, counted)."
        ),
    ] = "fold",
    labels: Annotated[
        str, typer.Option("--labels", help="trained: labels of the training; current: of today.")
    ] = "trained",
    by: Annotated[
        str | None,
        typer.Option(help="Also by group, annotator, source, size, fold, or a column of a table."),
    ] = None,
    out_file: Annotated[
        Path | None, typer.Option("--out", help="A .csv or .json with every figure.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show all figures of a model, each with n and its interval; undefined ones as such."""
    from cnsapp.services.evaluation import evaluate_model
    from cnsapp.services.evaluation_tables import as_json as plain
    from cnsapp.services.models import current_model, get_model
    from cnsapp.services.projects import get_project
    from cnsapp.services.split_uses import looks_so_far

    if out_file is not None and out_file.suffix.lower() not in (".csv", ".json"):
        raise InvalidInputError(
            f"{out_file.name} ends neither in .csv nor in .json.",
            "The ending says which kind of file is written.",
            "Name it figures.csv, for example.",
        )
    app = opened()
    view = get_project(app.store, project=project)
    model_id = model if model is not None else current_model(app.store, project_id=view.id).id
    found = evaluate_model(
        app.store,
        model_id,
        cast("Part", part),
        cast("Truth", labels),
        by,
        who=who(None),
        project_id=view.id,
    )
    facts: dict[str, Any] = plain(found)
    lines = _lines(found)
    if found.part == "test":
        split = get_model(app.store, model_id=model_id).split_id
        counts, said = looks_so_far(app.store, [split])
        facts["n_uses"] = counts.get(split or 0)
        lines[1:1] = said
    if out_file is not None:
        _write(out_file, found, facts)
        lines.append(f"All figures are in {out_file}")
    answer(facts, lines, as_json)


def _write(path: Path, found: Evaluated, facts: dict[str, Any]) -> None:
    from cnsapp.services.evaluation_tables import all_figures, as_csv

    text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
    if path.suffix.lower() == ".csv":
        text = as_csv(all_figures(found))
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CnsError(
            f"{path} can not be written: {error.strerror or error}.",
            "The figures were computed, but there is no file.",
            "Name another place with --out.",
        ) from error


def _lines(found: Evaluated) -> list[str]:
    from cnsapp.services import evaluation_tables as tables

    where = "locked test set" if found.part == "test" else "held-out images"
    s = found.scores
    groups = f" from {s.n_groups} groups" if s.n_groups else ""
    lines = [f"Model {found.model_id}, {found.model_name}: {s.n} images{groups}, {where}."]
    if found.n_elsewhere:
        lines.append(f"{found.n_elsewhere} left out: no label, or a class the model does not know.")
    rows = [f for f in tables.overall(found) if f.item == "all"]
    rows += [f for f in tables.overall(found) if f.item != "all"]
    rows += tables.by_class(found) + tables.areas(found)
    rows += [f for f in tables.calibrated(found) if f.item.endswith("temperature")]
    rows += [f for f in tables.abstaining(found) if f.figure in ("AURC", "threshold", "coverage")
             and not f.item.startswith("from")]  # fmt: skip
    head = ("section", "of", "figure", "value", "95 % interval", "n")
    lines += table([_row(figure) for figure in rows], head)
    if found.slices is not None:
        slices = [
            (s.value or "not noted", _number(s.balanced_accuracy), _pair(s.interval),
             _number(s.accuracy), s.n, _number(s.p_holm), s.verdict)
            for s in found.slices
        ]  # fmt: skip
        titles = (str(found.by), "balanced accuracy", "interval", "accuracy", "n", "p", "verdict")
        lines += ["", *table(slices, titles)]
    return lines


def _row(f: Figure) -> tuple[Any, ...]:
    value = f.value if isinstance(f.value, str) else _number(f.value)
    return (f.section, f.item, f.figure, value, _pair(f.interval), "" if f.n is None else f.n)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _pair(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
