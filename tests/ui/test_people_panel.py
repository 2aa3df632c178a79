"""The views People and Progress as Streamlit draws them: empty, one person, several, blind."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from cnsapp.domain.consensus import ConsensusRule
from cnsapp.services import bulk, label_settings, projects, readings
from cnsapp.services import progress as progress_service
from cnsapp.ui import progress_panel
from cnsapp.ui.people_panel import in_words
from db.models import Reading, SuggestionRun
from db.session import Store
from tests.integration.test_labels import add_images
from tests.ui.conftest import Screen


@pytest.fixture
def store(app: object) -> Store:
    """Return the store that the screen shows."""
    found: Store = app.store  # type: ignore[attr-defined]
    return found


@pytest.fixture
def ids(store: Store) -> list[int]:
    """Return forty images of a project with two classes."""
    project = projects.create_project(store, name="Kidney", classes=["cortex", "medulla"])
    return add_images(store, project.id, 40)


def say(store: Store, who: str, said: dict[int, int], source: str = "bulk") -> None:
    class_ids = [c.id for c in projects.list_classes(store, project_id=1)]
    bulk.label_images(
        store, project_id=1, annotator=who, image_ids=list(said), class_id=None, source=source,
        classes=[class_ids[k] for k in said.values()],
    )  # fmt: skip


def two_people(store: Store, ids: list[int]) -> None:
    say(store, "ada", {i: k % 2 for k, i in enumerate(ids[:30])})
    say(store, "ben", {i: k % 2 if k > 2 else 1 - k % 2 for k, i in enumerate(ids[:30])}, "second")


def people(screen: Screen, **more: str) -> Screen:
    shown = screen.open("label", project=1, who="ada", view="People", **more)
    assert shown.errors == []
    return shown


@pytest.mark.usefixtures("ids")
def test_nobody_has_labelled(screen: Screen) -> None:
    assert "Nobody has labelled in this project yet" in people(screen).words


def test_one_person_is_told_how_to_get_a_second_reading(
    screen: Screen, store: Store, ids: list[int]
) -> None:
    say(store, "ada", dict.fromkeys(ids[:20], 0))
    shown = people(screen)
    assert "One person has labelled so far" in shown.words
    assert shown.primary == ["Ask for 2 readings"]
    shown.press("readings_go")
    assert "Asked for 2 readings" in shown.words
    with store.reading() as session:
        assert {r.asked_by for r in session.scalars(select(Reading))} == {"ada"}
    shown.press("readings_withdraw")
    assert readings.count_readings(store, project_id=1) == []


def test_two_people_see_their_agreement_and_the_rule(
    screen: Screen, store: Store, ids: list[int]
) -> None:
    two_people(store, ids)
    label_settings.change_settings(store, project_id=1, rule=ConsensusRule("majority", 2))
    shown = people(screen)
    assert "a majority of 2 readers decides" in shown.words
    # 27 of 30 the same, each class half of the time: kappa (0.9 - 0.5) / 0.5
    assert "0.80" in shown.words
    assert "The same class on 90 % of 30 images." in shown.words
    assert "substantial (Landis &amp; Koch 1977)" in shown.words
    assert "Images on which ada and ben part" in shown.words
    assert shown.has("people_rule")


def test_a_blind_project_shows_the_images_to_who_settles_alone(
    screen: Screen, store: Store, ids: list[int]
) -> None:
    two_people(store, ids)
    label_settings.change_settings(store, project_id=1, blind=True)
    shown = people(screen)
    assert "This project labels blindly" in shown.words
    shown.test.toggle(key="people_settle").set_value(True).run()
    assert "This project labels blindly" not in shown.words
    assert shown.errors == []


def test_the_words_for_a_kappa_are_those_of_the_paper() -> None:
    found = [in_words(k).split(" (")[0] for k in (0.81, 0.8, 0.61, 0.5, 0.3, 0.1, -0.1)]
    assert found == [
        "almost perfect", "substantial", "substantial", "moderate", "fair", "slight", "poor",
    ]  # fmt: skip


def progress(screen: Screen) -> Screen:
    shown = screen.open("label", project=1, who="ada", view="Progress")
    assert shown.errors == []
    return shown


@pytest.mark.usefixtures("ids")
def test_progress_without_a_label(screen: Screen) -> None:
    shown = progress(screen)
    assert "0 of 40" in shown.words
    assert "Nobody has labelled in the app yet" in shown.words
    assert "The learning curve begins with the first suggestions" in shown.words


def test_progress_with_labels_and_a_curve(screen: Screen, store: Store, ids: list[int]) -> None:
    two_people(store, ids)
    class_ids = [c.id for c in projects.list_classes(store, project_id=1)]
    with store.writing() as session:
        for n in (25, 50, 100, 200, 400, 800):
            value = 0.95 - 1.5 * n**-0.5
            figures = {
                "balanced_accuracy": value,
                "balanced_accuracy_interval": [value - 0.01, value + 0.01],
            }
            session.add(
                SuggestionRun(
                    project_id=1, n_labels=n, n_images=40, newest_event=1, class_ids=class_ids,
                    figures=figures,
                )
            )  # fmt: skip
    shown = progress(screen)
    assert "30 of 40" in shown.words
    assert "more labels for one more percentage point" in shown.words


@pytest.mark.usefixtures("ids")
def test_time_left_names_what_is_missing(store: Store) -> None:
    now = progress_service.progress(store, project_id=1)
    assert progress_panel._time_left(now, "")[1] == "say who is labelling, in the sidebar"
    assert progress_panel._time_left(now, "ada")[1] == "not known yet"


def test_only_mine_is_offered_where_somebody_else_has_labelled(
    screen: Screen, store: Store, ids: list[int]
) -> None:
    say(store, "ada", dict.fromkeys(ids[:3], 0))
    shown = screen.open("label", project=1, who="ada")
    assert "whose_shown" not in [box.key for box in shown.test.selectbox]
    say(store, "ben", dict.fromkeys(ids[3:6], 0))
    shown.test.run()
    shown.test.selectbox(key="whose_shown").set_value("mine").run()
    assert shown.test.query_params["whose"] in ("mine", ["mine"])
    assert shown.errors == []
