"""What the classes that a model knows are called today, and what they count as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from cnsapp.domain.names import clean_name
from db.deciding import class_meanings
from db.models import LabelClass

GRAY = "#8A9598"  # of a class that is gone


@dataclass(frozen=True)
class ClassToday:
    """A class as it reads today; `counts_as` is itself, what it was merged into, or None."""

    id: int
    name: str  # "colon", "colon (now large bowel)", "colon (deleted)"
    own_name: str
    color: str
    counts_as: int | None


@dataclass(frozen=True)
class Output:
    """What a model can answer today: a class, and the places of its outputs that mean it."""

    class_id: int  # of a deleted class its own
    name: str
    color: str
    places: tuple[int, ...]
    deleted: bool = False


def classes_today(session: Session, project_id: int) -> dict[int, ClassToday]:
    """Return all classes that a project ever had, by id."""
    rows = session.execute(
        select(LabelClass.id, LabelClass.name, LabelClass.color).where(
            LabelClass.project_id == project_id
        )
    ).all()
    names = {class_id: name for class_id, name, _ in rows}
    meanings = class_meanings(session, project_id)
    found = {}
    for class_id, name, color in rows:
        counts_as = meanings.get(class_id, class_id)
        if counts_as is None:
            shown = f"{name} (deleted)"
        else:
            shown = name if counts_as == class_id else f"{name} (now {names[counts_as]})"
        found[class_id] = ClassToday(class_id, shown, name, color, counts_as)
    return found


def outputs_of(class_ids: Sequence[int], today: Mapping[int, ClassToday]) -> list[Output]:
    """Return what a model of these classes can answer today, in the order of its outputs."""
    places: dict[int, list[int]] = {}
    for place, class_id in enumerate(class_ids):
        there = today.get(class_id)
        counts_as = there.counts_as if there else None
        places.setdefault(class_id if counts_as is None else counts_as, []).append(place)
    found = []
    for class_id, at in places.items():
        there = today.get(class_id)
        gone = there is None or there.counts_as is None
        name = there.name if there else f"class {class_id}"
        color = GRAY if gone or there is None else there.color
        found.append(Output(class_id, name, color, tuple(at), gone))
    return _told_apart(found)


def _told_apart(outputs: Sequence[Output]) -> list[Output]:
    """Two deleted classes of one name must not share a column."""
    seen: set[str] = set()
    found = []
    for output in outputs:
        name = output.name if output.name not in seen else f"{output.name} no. {output.class_id}"
        seen.add(name)
        found.append(Output(output.class_id, name, output.color, output.places, output.deleted))
    return found


def what_changed(
    class_ids: Sequence[int], then: Mapping[int, str], today: Mapping[int, ClassToday]
) -> list[str]:
    """Return in sentences what became of a model's classes since it was trained.

    Parameters
    ----------
    then
        Names of the classes when it was trained, by id, where they are known.
    """
    said = []
    for class_id in class_ids:
        there = today.get(class_id)
        if there is None:
            continue
        old = then.get(class_id, there.own_name)
        if there.counts_as is None:
            said.append(
                f"“{old}” was deleted since this model was trained: it still predicts it, and such "
                "predictions count for no class."
            )
        elif there.counts_as != class_id:
            into = today[there.counts_as].own_name
            said.append(
                f"“{old}” was merged into “{into}” since this model was trained: what it says of "
                f"“{old}” counts as “{into}”."
            )
        elif clean_name(old) != there.own_name:
            said.append(f"“{old}” is called “{there.own_name}” since this model was trained.")
    return said
