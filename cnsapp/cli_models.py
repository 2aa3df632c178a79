"""Commands for models: list them, one model's standing, compare several, find the best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnsapp.cli_io import JsonFlag, ProjectName, answer, finish, opened, table, who
from cnsapp.errors import InvalidInputError

if TYPE_CHECKING:
    from cnsapp.services.models import ModelView

model_cli = typer.Typer(no_args_is_help=True, help="One model: promote, archive, note, rerun.")
Number = Annotated[int, typer.Argument(help="Model number.", show_default=False)]


def register(cli: typer.Typer) -> None:
    """Add these commands."""
    cli.command("models")(models)
    cli.add_typer(model_cli, name="model")
    cli.command("compare")(compare)
    cli.command("find-best")(find_best)


def models(project: ProjectName, as_json: JsonFlag = False) -> None:
    """List the models of a project, the newest first; archived ones are marked."""
    from cnsapp.services.models import list_models
    from cnsapp.services.projects import get_project

    app = opened()
    view = get_project(app.store, project=project)
    found = list_models(app.store, project_id=view.id, archived=True)
    rows = [
        (
            m.id, m.name, m.preset, m.backbone, m.metrics.get("head") or "",
            _figure(m.metrics.get("balanced_accuracy")), _figure(_test_score(m)), m.n_images,
            m.created_at.isoformat(sep=" ", timespec="minutes"), _standing(m),
        )
        for m in found
    ]  # fmt: skip
    head = (
        "id", "name", "preset", "backbone", "head", "balanced accuracy", "test", "images", "made",
        "",
    )  # fmt: skip
    answer([_facts(m) for m in found], table(rows, head) if rows else ["No model yet."], as_json)


@model_cli.command("promote")
def promote(model_id: Number, as_json: JsonFlag = False) -> None:
    """Make a model the current one: what is used where none is named."""
    from cnsapp.services.model_standing import promote_model

    model = promote_model(opened().store, model_id=model_id)
    _say(model, f"{model.name} is the current model.", as_json)


@model_cli.command("archive")
def archive(model_id: Number, as_json: JsonFlag = False) -> None:
    """Put a model aside; its file and figures stay."""
    from cnsapp.services.model_standing import archive_model

    model = archive_model(opened().store, model_id=model_id)
    _say(model, f"{model.name} is archived.", as_json)


@model_cli.command("restore")
def restore(model_id: Number, as_json: JsonFlag = False) -> None:
    """Take a model out of the archive."""
    from cnsapp.services.model_standing import restore_model

    model = restore_model(opened().store, model_id=model_id)
    _say(model, f"{model.name} is offered again.", as_json)


@model_cli.command("rename")
def rename(model_id: Number, name: str, as_json: JsonFlag = False) -> None:
    """Give a model another name."""
    from cnsapp.services.model_standing import rename_model

    model = rename_model(opened().store, model_id=model_id, name=name)
    _say(model, f"Model {model.id} is called {model.name}.", as_json)


@model_cli.command("note")
def note(model_id: Number, text: str, as_json: JsonFlag = False) -> None:
    """Keep a note with a model; an empty text takes it away."""
    from cnsapp.services.model_standing import note_model

    model = note_model(opened().store, model_id=model_id, note=text)
    _say(model, f"Noted with {model.name}." if model.note else "The note is gone.", as_json)


@model_cli.command("rerun")
def rerun(
    model_id: Number,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the model is there.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Train again with the recipe, backbone and seed of a model; say what differs today."""
    from cnsapp.services.model_standing import differs_today, rerun_model

    app = opened()
    said = differs_today(app, model_id=model_id)
    job_id = rerun_model(app, model_id=model_id, requested_by=who(None))
    facts: dict[str, Any] = {"job_id": job_id, "rerun_of": model_id, "differs": said}
    lines = [f"Job {job_id} is queued.", *(f"Differs today: {line}" for line in said)]
    lines += [] if said else ["Labels, reading and versions are those of the record."]
    if wait:
        job = finish(app, job_id)
        facts |= {"state": job.state, **job.result}
        lines.append(f"Model {job.result.get('model_id')}")
    answer(facts, lines, as_json)


def compare(
    project: ProjectName,
    models: Annotated[str, typer.Option("--models", help="Model numbers: 3,5,7.")],
    test: Annotated[
        bool, typer.Option("--test", help="On the locked test set, not out of fold.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Compare models on the images that all of them judged without having seen them."""
    from cnsapp.services.comparing import compare_models
    from cnsapp.services.comparing_words import comparison_json, in_words
    from cnsapp.services.projects import get_project
    from cnsapp.services.split_uses import looks_so_far

    app = opened()
    view = get_project(app.store, project=project)
    found = compare_models(
        app.store, model_ids=_numbers(models), part="test" if test else "fold",
        project_id=view.id, who=who(None),
    )  # fmt: skip
    result = found.found
    groups = "" if result.n_groups is None else f" from {result.n_groups:,} groups"
    rows = [
        (m.id, m.name, _figure(score), _interval(bounds), _figure(accuracy))
        for m, score, bounds, accuracy in zip(
            found.models, result.scores, result.intervals, result.accuracies, strict=True
        )
    ]
    lines = [
        f"{result.n:,} images{groups}",
        *table(rows, ("id", "name", "balanced accuracy", "95 % interval", "accuracy")),
        *(in_words(found, pair) for pair in result.pairs),
        *(f"Note: {line}" for line in found.notes),
    ]
    facts = comparison_json(found)
    if test:
        counts, said = looks_so_far(app.store, [model.split_id for model in found.models])
        facts["n_uses"] = {str(split): n for split, n in counts.items()}
        lines[1:1] = said
    answer(facts, lines, as_json)


def find_best(
    project: ProjectName,
    minutes: Annotated[float, typer.Option(help="Time budget.")] = 30,
    backbones: Annotated[
        str, typer.Option(help="Networks to try: a,b; all whose weights are here.")
    ] = "",
    presets: Annotated[str, typer.Option(help="Presets to try: quick,full,best.")] = "",
    seed: Annotated[int, typer.Option(help="Of folds and training.")] = 0,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the model is there.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Try backbones and presets on the same folds within a time budget, and keep the best."""
    from cnsapp.services.projects import get_project
    from cnsapp.services.searching import read_search, start_search

    app = opened()
    view = get_project(app.store, project=project)
    job_id = start_search(
        app, project_id=view.id, minutes=minutes, backbones=_names(backbones) or None,
        presets=_names(presets) or None, seed=seed, requested_by=who(None),
    )  # fmt: skip
    facts: dict[str, Any] = {"job_id": job_id}
    lines = [f"Job {job_id} is queued. The app or `worker` runs it; `jobs` shows how far it is."]
    if wait:
        job = finish(app, job_id)
        found = read_search(app.store, job_id=job_id)
        facts |= {"state": job.state, **job.result}
        rows = [
            (
                t.round, t.title, _figure(t.score), _figure(t.standard_error), t.n,
                f"{t.seconds:.0f} s", t.said,
            )
            for t in found.trials
        ]  # fmt: skip
        head = ("round", "candidate", "balanced accuracy", "s.e.", "n", "took", "")
        lines = [*table(rows, head), *([found.outcome] if found.outcome else [])]
    answer(facts, lines, as_json)


def _facts(m: ModelView) -> dict[str, Any]:
    return {
        "id": m.id,
        "name": m.name,
        "preset": m.preset,
        "backbone": m.backbone,
        "created_at": m.created_at,
        "metrics": m.metrics,
        "class_ids": m.class_ids,
        "n_images": m.n_images,
        "job_id": m.job_id,
        "current": m.is_current,
        "archived": m.archived,
        "note": m.note,
        "test": m.metrics.get("test"),
        "score_of": m.metrics.get("score_of", "folds"),
        "split": m.split_id,
        "rerun_of": m.rerun_of,
    }


def _say(model: ModelView, line: str, as_json: bool) -> None:
    answer(_facts(model), [line], as_json)


def _test_score(m: ModelView) -> float | None:
    test = m.metrics.get("test")
    return test.get("balanced_accuracy") if isinstance(test, dict) else None


def _standing(m: ModelView) -> str:
    words = ["current"] if m.is_current else ["archived"] if m.archived else []
    return "  ".join([*words, m.note.partition("\n")[0][:60]]).strip()


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError as error:
        raise InvalidInputError(
            f"“{text}” is no list of model numbers.", "", "Write --models 3,5,7."
        ) from error


def _names(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _interval(bounds: tuple[float, float] | None) -> str:
    return "" if bounds is None else f"{bounds[0]:.3f} to {bounds[1]:.3f}"
