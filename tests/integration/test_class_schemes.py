"""Class schemes: what one would change, taken in as one step, and written to a file again."""

from __future__ import annotations

import pytest

from cnsapp.domain.schemes import ORGAN_SYSTEMS
from cnsapp.errors import InvalidInputError
from cnsapp.services import class_schemes, classes, projects
from db.session import Store

CSV = b"""name,parent,color,key,description
Colon,digestive,#123456,d1,the large bowel
spleen,lymphatic,,,
"""


@pytest.fixture
def project_id(store: Store) -> int:
    return projects.create_project(store, name="p", classes=["colon", "liver"]).id


def take(store: Store, project_id: int, data: bytes) -> classes.ClassChange:
    scheme = class_schemes.read_file(data, "scheme.csv")
    return class_schemes.apply_scheme(store, project_id=project_id, scheme=scheme, who="ann")


def test_the_preview_says_what_then_happens_in_one_step(store: Store, project_id: int) -> None:
    before = classes.list_classes(store, project_id=project_id)
    scheme = class_schemes.read_file(CSV, "scheme.csv")
    plan = class_schemes.preview_scheme(store, project_id=project_id, scheme=scheme)
    assert (plan.n_added, plan.n_changed, plan.kept) == (1, 1, ("liver",))
    assert plan.rows[0].changes == (
        "spelt Colon (was colon)", "group digestive (was none)", "colour #123456 (was #0072B2)",
        "key d1 (was 1)", "description",
    )  # fmt: skip
    done = take(store, project_id, CSV)
    after = classes.list_classes(store, project_id=project_id)
    assert [(c.name, c.parent, c.hotkey) for c in after] == [
        ("Colon", "digestive", "d1"), ("liver", None, "2"), ("spleen", "lymphatic", "1"),
    ]  # fmt: skip
    assert (after[0].id, after[0].color) == (before[0].id, "#123456")
    with pytest.raises(InvalidInputError, match="changes nothing"):
        take(store, project_id, CSV)
    classes.undo_class_change(store, project_id=project_id, who="jon")
    assert classes.list_classes(store, project_id=project_id) == before
    classes.redo_class_change(store, project_id=project_id, who="jon", change=done.id)
    assert classes.list_classes(store, project_id=project_id) == after


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_what_one_project_writes_another_one_takes_in(
    store: Store, project_id: int, kind: class_schemes.Format
) -> None:
    take(store, project_id, CSV)
    data = class_schemes.export_scheme(store, project_id=project_id, kind=kind)
    other = projects.create_project(store, name="other").id
    take(store, other, data)

    def all_but_id(project: int) -> list[tuple[object, ...]]:
        found = classes.list_classes(store, project_id=project)
        return [(c.name, c.parent, c.color, c.hotkey, c.position, c.description) for c in found]

    assert all_but_id(other) == all_but_id(project_id)


def test_keys_that_are_taken_are_told_and_not_given_twice(store: Store, project_id: int) -> None:
    data = b"name,key\ncolon,\nspleen,1\nlung,2\n"
    scheme = class_schemes.read_file(data, "scheme.csv")
    plan = class_schemes.preview_scheme(store, project_id=project_id, scheme=scheme)
    assert len(plan.notes) == 2
    assert "“lung” does not get the key 2: “liver”" in plan.notes[0]
    assert "“colon” loses its key 1: the scheme gives “spleen”" in plan.notes[1]
    take(store, project_id, data)
    keys = {c.name: c.hotkey for c in classes.list_classes(store, project_id=project_id)}
    assert keys == {"colon": None, "liver": "2", "spleen": "1", "lung": "3"}


def test_keys_may_change_hands(store: Store, project_id: int) -> None:
    take(store, project_id, b"name,key\ncolon,2\nliver,1\n")
    keys = {c.name: c.hotkey for c in classes.list_classes(store, project_id=project_id)}
    assert keys == {"colon": "2", "liver": "1"}
    classes.undo_class_change(store, project_id=project_id, who="jon")
    keys = {c.name: c.hotkey for c in classes.list_classes(store, project_id=project_id)}
    assert keys == {"colon": "1", "liver": "2"}


def test_the_organ_systems_are_built_in(store: Store) -> None:
    empty = projects.create_project(store, name="empty").id
    scheme = class_schemes.built_in("organ-systems")
    class_schemes.apply_scheme(store, project_id=empty, scheme=scheme, who="ann")
    found = classes.list_classes(store, project_id=empty)
    assert [(c.name, c.parent) for c in found] == [(s.name, s.parent) for s in ORGAN_SYSTEMS]
    classes.suggest_keys(store, project_id=empty, who="ann")
    keys = {c.name: c.hotkey for c in classes.list_classes(store, project_id=empty)}
    assert keys["colon"] == "d1" and keys["lymph_node"] == "l2"
    with pytest.raises(InvalidInputError, match="organ-systems"):
        class_schemes.built_in("organs")
