"""Commands for splits: create, list, show, activate, off, pin, unpin."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnsapp.cli_io import JsonFlag, ProjectName, answer, opened, table, who
from cnsapp.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from cnsapp.services.splits import SplitView
    from db.session import Store

split_cli = typer.Typer(
    help="Divide a project into train, validation and a locked test set.", no_args_is_help=True
)
SplitNumber = Annotated[int | None, typer.Argument(help="Number of the split; the active one.")]
Images = Annotated[
    list[str], typer.Argument(help="Names in the project, or image numbers.", show_default=False)
]
Groups = Annotated[bool, typer.Option("--group", help="The names are groups: all their images.")]


def register(cli: typer.Typer) -> None:
    """Add these commands."""
    cli.add_typer(split_cli, name="split")


@split_cli.command("create")
def create(
    project: ProjectName,
    name: Annotated[str, typer.Option(help="What it is called.")] = "",
    shares: Annotated[
        str, typer.Option(help="Percent of train/validation/test, or of train/test.")
    ] = "60/20/20",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same split.")] = 0,
    scheme: Annotated[
        str,
        typer.Option(
            help="What is kept together: “by group”, “by file-name blocks”, “by column” or "
            "“random”; groups if there are any, else blocks, when not named."
        ),
    ] = "",
    column: Annotated[str, typer.Option(help="Of the metadata, for “by column”.")] = "",
    annotator: Annotated[str | None, typer.Option(help="By whom; your login name.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Divide all images once; training follows the new split, and its test set is locked."""
    from cnsapp.services.splits import create_split

    store, project_id = _project(project)
    made = create_split(
        store, project_id=project_id, name=name, shares=read_shares(shares), seed=seed,
        scheme=scheme, column=column, who=who(annotator),
    )  # fmt: skip
    _show(store, made, as_json)


@split_cli.command("list")
def list_(project: ProjectName, as_json: JsonFlag = False) -> None:
    """List the splits of a project, the newest first."""
    from cnsapp.services.splits import list_splits

    store, project_id = _project(project)
    found = list_splits(store, project_id=project_id)
    rows = [
        (s.id, s.name, "active" if s.active else "", s.scheme, *s.n.values(), s.n_uses)
        for s in found
    ]
    head = ("split", "name", "", "scheme", "train", "validation", "test", "looked at")
    lines = table(rows, head) if rows else ["No split: folds alone score the models."]
    answer([_facts(s) for s in found], lines, as_json)


@split_cli.command("show")
def show(project: ProjectName, split: SplitNumber = None, as_json: JsonFlag = False) -> None:
    """Show how many images and groups of each class the parts hold, and who looked at the test."""
    store, project_id = _project(project)
    _show(store, _split(store, project_id, split), as_json)


@split_cli.command("activate")
def activate(
    project: ProjectName,
    split: Annotated[int, typer.Argument(help="Number of the split.")],
    as_json: JsonFlag = False,
) -> None:
    """Let training follow an older split again."""
    from cnsapp.services import splits

    store, project_id = _project(project)
    splits.get_split(store, split_id=split, project_id=project_id)
    _show(store, splits.activate(store, split_id=split), as_json)


@split_cli.command("off")
def off(project: ProjectName, as_json: JsonFlag = False) -> None:
    """Let training follow no split: every labelled image is learnt from, folds alone score."""
    from cnsapp.services.splits import deactivate

    store, project_id = _project(project)
    deactivate(store, project_id=project_id)
    answer({"active": None}, ["No split is active: folds alone score."], as_json)


@split_cli.command("pin")
def pin(
    images: Images,
    project: ProjectName,
    part: Annotated[
        str | None,
        typer.Option(help="Move them to “train” or “validation” first, with all that belongs."),
    ] = None,
    group: Groups = False,
    split: Annotated[int | None, typer.Option(help="Number of the split; the active one.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Have images stay in their part, also when a new split is made."""
    from cnsapp.services.splits import pin_images

    store, project_id = _project(project)
    view = _split(store, project_id, split)
    ids = _ids(store, project_id, images, group)
    done = pin_images(store, split_id=view.id, image_ids=ids, part=part)
    moved = f" {done.n_moved:,} moved to {part}, with all that belongs." if part else ""
    answer({"split": view.id, **asdict(done)}, [f"{done.n_pinned:,} pinned.{moved}"], as_json)


@split_cli.command("unpin")
def unpin(
    images: Images,
    project: ProjectName,
    group: Groups = False,
    split: Annotated[int | None, typer.Option(help="Number of the split; the active one.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Remove pins; the images stay where they are in this split."""
    from cnsapp.services.splits import unpin_images

    store, project_id = _project(project)
    view = _split(store, project_id, split)
    ids = _ids(store, project_id, images, group)
    n = unpin_images(store, split_id=view.id, image_ids=ids)
    answer({"split": view.id, "n_unpinned": n}, [f"{n:,} pins removed."], as_json)


def read_shares(text: str) -> dict[str, float]:
    """Return the shares that a text like `60/20/20` or `80/20` names.

    Raises
    ------
    InvalidInputError
        It is no such text.
    """
    cells = text.replace(" ", "").replace("%", "").split("/")
    parts = {3: ("train", "validation", "test"), 2: ("train", "test")}.get(len(cells))
    try:
        values = [float(cell) / 100 for cell in cells]
    except ValueError:
        parts = None
    if parts is None:
        raise InvalidInputError(
            f"The shares “{text}” cannot be read.",
            "",
            "Write percent of train, validation and test, for example 60/20/20, or 80/20.",
        )
    return dict(zip(parts, values, strict=True))


def _project(name: str) -> tuple[Store, int]:
    from cnsapp.services.projects import get_project

    app = opened()
    return app.store, get_project(app.store, project=name).id


def _split(store: Store, project_id: int, number: int | None) -> SplitView:
    from cnsapp.services.splits import active_split, get_split

    if number is not None:
        return get_split(store, split_id=number, project_id=project_id)
    found = active_split(store, project_id=project_id)
    if found is None:
        raise NotFoundError(
            "No split of this project is active.",
            "Models are scored by folds alone.",
            "Make one with `split create`, or name one of `split list`.",
        )
    return found


def _ids(store: Store, project_id: int, names: list[str], group: bool) -> list[int]:
    from cnsapp.services.splits import find_members

    return find_members(store, project_id=project_id, names=names, as_groups=group)


def _facts(view: SplitView) -> dict[str, Any]:
    return {
        "id": view.id, "name": view.name, "active": view.active, "scheme": view.scheme,
        "column": view.column, "seed": view.seed, "shares": view.shares, "n": view.n,
        "n_pinned": view.n_pinned, "n_uses": view.n_uses, "unplaced": view.unplaced,
        "created_by": view.created_by, "created_at": view.created_at,
    }  # fmt: skip


def _show(store: Store, view: SplitView, as_json: bool) -> None:
    from cnsapp.services.splits import part_counts, uses

    counts = part_counts(store, split_id=view.id)
    looks = uses(store, split_id=view.id)
    parts = [part for part in view.n if view.n[part]]
    head = ["class", *(word for part in parts for word in (part, "groups"))]
    rows = [
        [row.name, *(cell for part in parts for cell in (row.n[part], row.n_groups[part]))]
        for row in (*counts.classes, counts.unlabelled, counts.together)
    ]
    said = [*view.said, *counts.said]
    lines = [
        f"{view.id}  {view.name}{'  (active)' if view.active else ''}: {view.scheme}, seed "
        f"{view.seed}. The test set is locked; looked at {view.n_uses} times.",
        *table(rows, head),
        *said,
        *(f"{u.at:%Y-%m-%d %H:%M}  {u.who}  {u.model_name}  {u.purpose}" for u in looks),
    ]
    facts = _facts(view) | {
        "classes": counts.as_json(),
        "warnings": said,
        "uses": [
            {"at": u.at, "who": u.who, "model_id": u.model_id, "model": u.model_name,
             "purpose": u.purpose, "split": u.split_id}
            for u in looks
        ],
    }  # fmt: skip
    answer(facts, lines, as_json)
