"""Commands for the classes of a project: list, change, merge, delete, undo, take in and out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnsapp.cli_io import Annotator, JsonFlag, ProjectName, answer, opened, table, who
from cnsapp.errors import InvalidInputError

if TYPE_CHECKING:
    from cnsapp.services.class_changes import ClassChange
    from cnsapp.services.class_rows import ClassView
    from cnsapp.services.projects import ProjectView
    from db.session import Store

classes_cli = typer.Typer(
    help="List and change the classes of a project; every change can be undone.",
    no_args_is_help=True,
)
ClassName = Annotated[str, typer.Argument(help="Name of the class.")]
Change = Annotated[int | None, typer.Argument(help="Number of the change; the last one if none.")]


def register(cli: typer.Typer) -> None:
    """Add these commands."""
    cli.add_typer(classes_cli, name="classes")


@classes_cli.command("list")
def list_(project: ProjectName, as_json: JsonFlag = False) -> None:
    """List the classes in their order, with how many images have each label."""
    from cnsapp.services import images
    from cnsapp.services.classes import list_classes

    store, view = _project(project)
    counts = images.counts(store, project_id=view.id).per_class
    rows = [
        {
            "id": c.id,
            "name": c.name,
            "parent": c.parent,
            "color": c.color,
            "key": c.hotkey,
            "position": place,
            "description": c.description,
            "n": counts.get(c.id, 0),
        }
        for place, c in enumerate(list_classes(store, project_id=view.id), start=1)
    ]
    head = ("position", "name", "parent", "key", "color", "n")
    lines = table([["" if row[k] is None else row[k] for k in head] for row in rows], head)
    answer(rows, lines, as_json)


@classes_cli.command("add")
def add(
    name: ClassName,
    project: ProjectName,
    parent: Annotated[str | None, typer.Option(help="Its group of classes.")] = None,
    color: Annotated[str | None, typer.Option(help="Such as #0072B2.")] = None,
    key: Annotated[str | None, typer.Option(help="One key, or two such as d1.")] = None,
    description: Annotated[str, typer.Option(help="What belongs to it.")] = "",
    annotator: Annotator = None,
    as_json: JsonFlag = False,
) -> None:
    """Add a class at the end; colour and key are the first free ones where none are named."""
    from cnsapp.services.classes import add_class

    store, view = _project(project)
    done = add_class(
        store, project_id=view.id, name=name, parent=parent, color=color, hotkey=key,
        description=description, who=who(annotator),
    )  # fmt: skip
    _say(done, as_json)


@classes_cli.command("rename")
def rename(
    name: ClassName,
    new_name: Annotated[str, typer.Argument(help="Its new name.")],
    project: ProjectName,
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge it into the class that has the name already.")
    ] = False,
    annotator: Annotator = None,
    as_json: JsonFlag = False,
) -> None:
    """Give a class another name; its labels and its models stay with it."""
    from cnsapp.services.classes import rename_class

    store, view = _project(project)
    one = _class(store, view, name)
    done = rename_class(store, class_id=one.id, name=new_name, who=who(annotator), merge=merge)
    _say(done, as_json)


@classes_cli.command("merge")
def merge(
    name: ClassName,
    into: Annotated[str, typer.Argument(help="The class that its labels count as from now on.")],
    project: ProjectName,
    annotator: Annotator = None,
    as_json: JsonFlag = False,
) -> None:
    """Merge a class into another one; its labels and predictions count as that one's."""
    from cnsapp.services.class_use import class_use
    from cnsapp.services.classes import merge_classes

    store, view = _project(project)
    one, other = _class(store, view, name), _class(store, view, into)
    use = class_use(store, class_id=one.id)
    done = merge_classes(store, class_id=one.id, into=other.id, who=who(annotator))
    _say(done, as_json, n_images=use.n_images)


@classes_cli.command("delete")
def delete(
    name: ClassName,
    project: ProjectName,
    reassign_to: Annotated[
        str | None, typer.Option(help="The class that its labels count as from now on.")
    ] = None,
    no_label: Annotated[
        bool, typer.Option("--no-label", help="Its images have no label from now on.")
    ] = False,
    annotator: Annotator = None,
    as_json: JsonFlag = False,
) -> None:
    """Delete a class. One that has labels asks where they go: --reassign-to or --no-label."""
    from cnsapp.services.class_use import class_use
    from cnsapp.services.classes import delete_class

    store, view = _project(project)
    one = _class(store, view, name)
    use = class_use(store, class_id=one.id)
    if use.n_readings and reassign_to is None and not no_label:
        raise InvalidInputError(
            f"{use.n_images:,} images are labelled “{one.name}” ({use.n_readings:,} labels by "
            f"{use.n_people:,} people), and the command does not say where they go.",
            "Nothing was deleted.",
            "Add --reassign-to CLASS, or --no-label; both can be undone.",
        )
    to = _class(store, view, reassign_to).id if reassign_to is not None else None
    done = delete_class(store, class_id=one.id, reassign_to=to, who=who(annotator))
    _say(done, as_json, n_images=use.n_images)


@classes_cli.command("set")
def set_(
    name: ClassName,
    project: ProjectName,
    color: Annotated[str | None, typer.Option(help="Such as #0072B2.")] = None,
    key: Annotated[
        str | None, typer.Option(help="One key, or two such as d1; '' for none.")
    ] = None,
    parent: Annotated[str | None, typer.Option(help="Its group of classes; '' for none.")] = None,
    position: Annotated[int | None, typer.Option(min=1, help="Its place; 1 is the first.")] = None,
    description: Annotated[str | None, typer.Option(help="What belongs to it.")] = None,
    annotator: Annotator = None,
    as_json: JsonFlag = False,
) -> None:
    """Set colour, key, group, place or description of a class."""
    from cnsapp.services.classes import change_class, move_class

    store, view = _project(project)
    one = _class(store, view, name)
    asked = {"color": color, "hotkey": key, "parent": parent, "description": description}
    changes = {field: value for field, value in asked.items() if value is not None}
    if not changes and position is None:
        raise InvalidInputError(
            "Nothing is to be set.", "", "Name --color, --key, --parent, --position, --description."
        )
    done = []
    if changes:
        done.append(change_class(store, class_id=one.id, who=who(annotator), **changes))
    if position is not None:
        done.append(move_class(store, class_id=one.id, to=position - 1, who=who(annotator)))
    facts = [_facts(change) for change in done]
    answer(facts[0] if len(facts) == 1 else facts, [c.sentence + "." for c in done], as_json)


@classes_cli.command("history")
def history(project: ProjectName, as_json: JsonFlag = False) -> None:
    """List the changes of the classes, the newest first."""
    from cnsapp.services.classes import list_changes

    store, view = _project(project)
    found = list_changes(store, project_id=view.id, limit=500)
    lines = table(
        [
            (c.id, f"{c.at:%Y-%m-%d %H:%M}", c.who,
             c.sentence + ("" if c.counts else f" (taken back by {c.undone_by})"))
            for c in found
        ],
        ("change", "when", "who", "what"),
    )  # fmt: skip
    answer([_facts(change) for change in found], lines, as_json)


@classes_cli.command("undo")
def undo(
    project: ProjectName,
    change: Change = None,
    annotator: Annotator = None,
    as_json: JsonFlag = False,
) -> None:
    """Take back a change of the classes: the one named, else the last."""
    from cnsapp.services.classes import undo_class_change

    store, view = _project(project)
    done = undo_class_change(store, project_id=view.id, who=who(annotator), change=change)
    answer(_facts(done), [f"Taken back: {done.sentence}."], as_json)


@classes_cli.command("redo")
def redo(
    project: ProjectName,
    change: Change = None,
    annotator: Annotator = None,
    as_json: JsonFlag = False,
) -> None:
    """Bring back a change of the classes: the one named, else the last one taken back."""
    from cnsapp.services.classes import redo_class_change

    store, view = _project(project)
    done = redo_class_change(store, project_id=view.id, who=who(annotator), change=change)
    answer(_facts(done), [f"Brought back: {done.sentence}."], as_json)


@classes_cli.command("export")
def export(
    project: ProjectName,
    out_file: Annotated[Path, typer.Option("--out", help="A .json or .csv file to write.")],
    as_json: JsonFlag = False,
) -> None:
    """Write the classes as a scheme that another project can take in."""
    from cnsapp.services.class_schemes import export_scheme
    from cnsapp.services.classes import list_classes

    store, view = _project(project)
    kind = out_file.suffix.lower().removeprefix(".")
    if kind not in ("json", "csv"):
        raise InvalidInputError(
            f"{out_file.name} ends neither in .json nor in .csv.", "", "Name the file so."
        )
    data = export_scheme(store, project_id=view.id, kind="csv" if kind == "csv" else "json")
    try:
        out_file.write_bytes(data)
    except OSError as error:
        raise InvalidInputError(f"{out_file} cannot be written: {error.strerror}.") from error
    n = len(list_classes(store, project_id=view.id))
    answer({"path": str(out_file), "n": n}, [f"{n} classes in {out_file}"], as_json)


@classes_cli.command("import")
def import_(
    file: Annotated[str, typer.Argument(help="A .json or .csv file, or “organ-systems”.")],
    project: ProjectName,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would change, and change nothing.")
    ] = False,
    annotator: Annotator = None,
    as_json: JsonFlag = False,
) -> None:
    """Take in a class scheme: add what is new, change what differs, leave the rest; one step."""
    from cnsapp.domain.schemes import SCHEMES
    from cnsapp.services import class_schemes

    store, view = _project(project)
    if file in SCHEMES:
        scheme = class_schemes.built_in(file)
    else:
        scheme = class_schemes.read_file(_bytes(Path(file)), Path(file).name)
    plan = class_schemes.preview_scheme(store, project_id=view.id, scheme=scheme)
    facts: dict[str, Any] = {
        "added": [row.spec.name for row in plan.rows if row.what == "added"],
        "changed": [
            {"name": row.spec.name, "changes": list(row.changes)}
            for row in plan.rows
            if row.what == "changed"
        ],
        "kept": list(plan.kept),
        "notes": list(plan.notes),
    }
    lines = [f"  new: {name}" for name in facts["added"]]
    lines += [f"  {row['name']}: {', '.join(row['changes'])}" for row in facts["changed"]]
    lines += [f"Note: {note}" for note in plan.notes]
    if dry_run:
        answer(facts, ["It would change:", *lines] if lines else ["Nothing."], as_json)
        return
    done = class_schemes.apply_scheme(store, project_id=view.id, scheme=scheme, who=who(annotator))
    answer({**_facts(done), **facts}, [done.sentence + ".", *lines], as_json)


def _project(name: str) -> tuple[Store, ProjectView]:
    from cnsapp.services.projects import get_project

    store = opened().store
    return store, get_project(store, project=name)


def _class(store: Store, view: ProjectView, name: str) -> ClassView:
    from cnsapp.services.classes import find_class

    return find_class(store, project_id=view.id, name=name)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInputError(
            f"{path} cannot be read: {error.strerror}.", "", "Check the path."
        ) from error


def _facts(done: ClassChange) -> dict[str, Any]:
    return {
        "change": done.id,
        "kind": done.kind,
        "what": done.sentence,
        "class_id": done.class_id,
        "who": done.who,
        "at": done.at.isoformat(timespec="seconds"),
        "counts": done.counts,
    }


def _say(done: ClassChange, as_json: bool, n_images: int | None = None) -> None:
    facts = _facts(done)
    line = done.sentence + "."
    if n_images is not None:
        facts["n_images"] = n_images
        line += f" {n_images:,} images are concerned; `classes undo {done.id}` takes it back."
    answer(facts, [line], as_json)
