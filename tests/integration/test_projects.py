"""Projects and classes."""

from __future__ import annotations

import pytest

from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services import classes, projects
from db.session import Store


def test_the_organ_systems_scheme_has_twelve_organs_in_their_systems(store: Store) -> None:
    made = projects.create_project(store, name="Organs", scheme="organ-systems")
    there = projects.list_classes(store, project_id=made.id)
    assert made.n_classes == len(there) == 12
    systems = {c.name: c.parent for c in there}
    assert systems["spleen"] == systems["lymph_node"] == "lymphatic"
    assert len({c.color for c in there}) == 12
    assert len({c.hotkey for c in there}) == 12
    assert not {"c", "r", "u", "s", "x"} & {c.hotkey for c in there}  # taken by other actions


def test_several_classes_are_added_together_or_not_at_all(store: Store) -> None:
    project_id = projects.create_project(store, name="p", classes=["liver"]).id
    with pytest.raises(InvalidInputError, match="same class name"):
        classes.add_classes(store, project_id=project_id, classes=["lung", "Liver"], who="ann")
    assert [c.name for c in projects.list_classes(store, project_id=project_id)] == ["liver"]
    classes.add_classes(store, project_id=project_id, classes=["lung", "colon"], who="ann")
    there = projects.list_classes(store, project_id=project_id)
    assert [(c.name, c.position) for c in there] == [("liver", 0), ("lung", 1), ("colon", 2)]


@pytest.mark.parametrize("other", ["organs", " Organs ", "ORGANS", "Ｏrgans"])
def test_two_projects_cannot_share_a_name(store: Store, other: str) -> None:
    projects.create_project(store, name="Organs")
    with pytest.raises(InvalidInputError, match="already"):
        projects.create_project(store, name=other)
    assert len(projects.list_projects(store)) == 1


@pytest.mark.parametrize(
    "names", [["liver", "Liver"], ["lymph node", "lymph  node "], ["Mu\u0308ller", "M\u00fcller"]]
)
def test_class_names_that_read_alike_are_refused(store: Store, names: list[str]) -> None:
    with pytest.raises(InvalidInputError, match="same class name"):
        projects.create_project(store, name="p", classes=names)
    assert projects.list_projects(store) == []


@pytest.mark.parametrize("name", ["", "   ", "a\x00b", "x" * 201])
def test_names_that_cannot_be_shown_are_refused(store: Store, name: str) -> None:
    with pytest.raises(InvalidInputError):
        projects.create_project(store, name="p", classes=[name])


def test_an_unknown_project_is_answered_with_the_ones_there_are(store: Store) -> None:
    projects.create_project(store, name="Kidney 2026")
    with pytest.raises(NotFoundError, match=r"no project “Liver”.*“Kidney 2026”"):
        projects.get_project(store, project="Liver")
    assert projects.get_project(store, project="kidney 2026").name == "Kidney 2026"


def test_an_unknown_scheme_is_refused(store: Store) -> None:
    with pytest.raises(InvalidInputError, match="organ-systems"):
        projects.create_project(store, name="p", scheme="organs")
