"""The Label page as Streamlit draws it: empty, typical, failing. A browser tests the keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from cnsapp.services import projects, sorting
from cnsapp.ui import start
from db.session import Store
from tests.integration.test_labels import add_images

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return the store of the installation that the page opens."""
    monkeypatch.setenv("CNS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CNS_START_WORKER", "false")
    monkeypatch.chdir(ROOT)
    return start.opened().store


def label_page(**params: str) -> AppTest:
    """Return the page, drawn."""
    page = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30)
    for name, value in {"who": "maria", **params}.items():
        page.query_params[name] = value
    return page.run().switch_page("pages/label.py").run()


def words(page: AppTest) -> str:
    """Return what the page says."""
    return " ".join(str(part.value) for part in [*page.markdown, *page.info, *page.error])


@pytest.mark.usefixtures("store")
def test_without_a_project_the_page_says_what_to_do_first() -> None:
    page = label_page()
    assert "Make a project first" in words(page)
    assert not page.exception


def test_without_images_the_page_leads_to_the_import(store: Store) -> None:
    projects.create_project(store, name="p", scheme="organ-systems")
    page = label_page()
    assert "no images yet" in words(page)
    assert page.button(key="empty_state_next").label == "Go to Images"


def test_without_classes_they_are_added_right_there(store: Store) -> None:
    project = projects.create_project(store, name="p")
    add_images(store, project.id, 3)
    page = label_page()
    page.text_area(key="class_names").set_value("colon\n\n liver ")
    page.button(key="add_classes").click().run()
    names = [c.name for c in projects.list_classes(store, project_id=project.id)]
    assert names == ["colon", "liver"]
    assert page.selectbox(key="class").options == ["Any class", "colon", "liver"]


def test_class_names_that_are_the_same_name_are_refused_in_words(store: Store) -> None:
    project = projects.create_project(store, name="p")
    add_images(store, project.id, 3)
    page = label_page()
    page.text_area(key="class_names").set_value("colon\nColon")
    page.button(key="add_classes").click().run()
    assert "are the same class name" in words(page)


def test_the_organ_scheme_is_one_click_away(store: Store) -> None:
    project = projects.create_project(store, name="p")
    add_images(store, project.id, 3)
    page = label_page()
    page.button(key="add_scheme").click().run()
    classes = projects.list_classes(store, project_id=project.id)
    assert len(classes) == 12
    assert classes[0].parent == "digestive"


def test_the_typical_page_has_filters_and_turns_pages_by_key(store: Store) -> None:
    project = projects.create_project(store, name="p", scheme="organ-systems")
    ids = add_images(store, project.id, 250)
    page = label_page()
    assert not page.exception
    assert not page.error
    assert page.button(key="previous_page").disabled
    page.button(key="next_page").click().run()
    assert page.query_params["after"] == str(ids[199])
    assert page.button(key="next_page").disabled
    page.text_input(key="find").set_value("tile_00").run()
    assert "after" not in page.query_params, "other filters start at their first page"


def test_a_foolish_address_shows_the_first_page(store: Store) -> None:
    project = projects.create_project(store, name="p", scheme="organ-systems")
    add_images(store, project.id, 3)
    for after in ("x", "-1", "999999", "²"):
        page = label_page(after=after)
        assert not page.exception
        assert not page.error


def test_one_by_one_starts_with_what_has_no_label(store: Store) -> None:
    project = projects.create_project(store, name="p", scheme="organ-systems")
    add_images(store, project.id, 3)
    page = label_page(view="One by one")
    assert page.selectbox(key="todo").value == "Not labelled"


def test_an_unforeseen_error_becomes_a_calm_sentence(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = projects.create_project(store, name="p", scheme="organ-systems")
    add_images(store, project.id, 3)

    def broken(*_args: object, **_more: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(sorting, "list_images", broken)
    page = label_page()
    assert "Something went wrong on this page" in words(page)
    assert "secret detail" not in words(page)
