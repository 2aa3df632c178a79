"""Review, Checks: never looked, running, found, out of date, blind; and pairs that are settled."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from html import escape
from typing import Any

import pytest
from sqlalchemy import select

from cnsapp.bootstrap import App
from cnsapp.domain.findings import Finding
from cnsapp.services import audit, jobs, labels
from cnsapp.services.audit_rows import state_now
from cnsapp.services.images import get_image
from cnsapp.services.label_settings import change_settings
from cnsapp.ui import review_checks_finding
from db.models import Job, Model, NearPair
from tests.integration.worlds import World, relabel
from tests.ui.conftest import Screen

AT = datetime(2026, 11, 28, 9, 30, tzinfo=UTC)
CUE = {
    "name": "the file's size alone", "n": 24, "n_of": 24, "n_units": 6, "n_classes": 2,
    "balanced_accuracy": 0.91, "interval": [0.8, 0.97], "chance": 0.5, "null_high": 0.7,
    "p": 0.001, "p_holm": 0.002, "n_tested": 2, "n_shuffles": 999, "skill": 0.82,
}  # fmt: skip


@pytest.fixture
def model_id(app: App, model_id: int) -> int:
    """Return the model, made long ago: “just now” in its name must not change while a test runs."""
    with app.store.writing() as session:
        session.get_one(Model, model_id).created_at = datetime(2026, 1, 1, tzinfo=UTC)
    return model_id


def shortcut(world: World, severity: str = "medium") -> Finding:
    return Finding(
        "shortcut", severity, "The label can be told from the file's size alone",
        "A sentence with n = 24.", "Make the images alike.", {**CUE, "follows": None},
        world.image_ids[0][:3], 3,
    )  # fmt: skip


def odd(world: World) -> Finding:
    return Finding(
        "odd images", "low", "2 labelled images unlike <b>*all*</b> others", "Of 24 images 2.",
        "Look at them.", {"scores": [1.4, 1.2]}, world.image_ids[1][:2], 2,
    )  # fmt: skip


def pairs(world: World) -> Finding:
    a, b = world.image_ids[0][0], world.image_ids[1][0]
    pair = {
        "similarity": 0.99, "image_a": a, "class_id_a": world.class_ids[0], "labelled_by_a": "ann",
        "source_a": "import", "image_b": b, "class_id_b": world.class_ids[1],
        "labelled_by_b": "bob", "source_b": "human",
    }  # fmt: skip
    return Finding(
        "different labels", "high", "1 pair of look-alikes with different labels", "Of 1 pair.",
        "Correct one.", {"n_pairs": 1, "n_different": 1, "share": 1.0, "pairs": [pair]}, [a, b], 2,
    )  # fmt: skip


def looked(
    world: World,
    findings: Sequence[Finding],
    *,
    checked: Any = (),
    not_told: Any = (),
    at: Any = AT,
) -> None:
    """Keep what a look found, as the worker does."""
    store = world.app.store
    with store.reading() as session:
        state = state_now(store, session, world.project_id)
    audit.write_report(
        store, project_id=world.project_id, job_id=int(at.timestamp()),
        report={"made_at": at.isoformat(), "state": state, "seed": 0,
                "findings": [f.as_json() for f in findings], "checked": list(checked),
                "not_told": list(not_told)},
    )  # fmt: skip


def checks(screen: Screen, model_id: int, **more: object) -> Screen:
    return screen.open("review", model=model_id, view="Checks", who="Bob", **more)


def test_before_the_first_look_the_view_says_what_it_asks_and_starts_it(
    screen: Screen, app: App, world: World, model_id: int
) -> None:
    checks(screen, model_id)
    assert "five questions" in screen.words and "Shortcuts" in screen.words
    assert screen.primary == ["Look through the data"] and not screen.errors
    screen.press("checks_start")
    assert not screen.has("checks_start")  # a bar with a way to stop it stands there now
    (job,) = jobs.list_jobs(app.store, project_id=world.project_id, kinds=["audit"])
    assert job.is_active and screen.has(f"job_{job.id}_stop")
    assert job.requested_by == "Bob"


def test_findings_are_cards_the_most_serious_first(
    screen: Screen, world: World, model_id: int
) -> None:
    looked(world, [odd(world), pairs(world), shortcut(world)])
    shown = checks(screen, model_id).words
    assert not screen.errors
    places = [shown.index(escape(f.title)) for f in (pairs(world), shortcut(world))]
    places.append(shown.index("unlike &lt;b&gt;*all*&lt;/b&gt;"))  # letter by letter
    assert places == sorted(places)
    assert "3 findings (1 high, 1 medium, 1 low)" in shown
    assert "0.91 (0.80–0.97), n = 24, chance 0.50, p = 0.002" in shown
    assert [screen.test.button(key=f"check_open_{k}").label for k in range(3)] == [
        "See 1 pair", "See 3 images", "See 2 images",
    ]  # fmt: skip
    assert screen.test.button(key="checks_again").proto.type == "secondary"


def test_a_finding_opens_with_its_images_and_closes_again(
    screen: Screen, world: World, model_id: int
) -> None:
    looked(world, [odd(world), shortcut(world)])
    checks(screen, model_id).press("check_open_0")
    assert screen.test.query_params["finding"] == f"{int(AT.timestamp())}-0"
    assert "Images that the model gets wrong just as the shortcut does" in screen.words
    assert "1 to 3 of 3" in screen.words and not screen.errors
    screen.press("check_back")
    assert screen.has("check_open_1") and "finding" not in screen.test.query_params


def test_a_group_that_does_worse_leads_to_its_sheet(
    screen: Screen, world: World, model_id: int
) -> None:
    worse = Finding(
        "worse group", "high", "The model does worse on Group: patient 1", "On 8 images.", "Look.",
        {"column": "Group", "value": "patient 1", "n": 8, "n_groups": 1, "accuracy": 0.5,
         "accuracy_interval": [0.2, 0.8], "difference": -0.4, "difference_interval": [-0.7, -0.1],
         "p_holm": 0.03},
        world.image_ids[0][:2], 2,
    )  # fmt: skip
    looked(world, [worse])
    checks(screen, model_id).press("check_open_0")
    assert "0.40 (0.10–0.70)" in screen.words and "0.50 (0.20–0.80)" in screen.words
    screen.press("check_group")
    assert "Group patient 1" in screen.words and not screen.errors
    assert screen.test.query_params["sheet"] == "Group"
    assert screen.test.query_params["view"] == "By class"


@pytest.mark.parametrize("value", [None, "all others (12)"])
def test_what_is_no_single_group_leads_to_no_sheet(value: str | None) -> None:
    said = {"column": "Group", "value": value}
    worse = Finding("worse group", "high", "Worse", "On 8 images.", "Look.", said, [], 0)
    assert review_checks_finding.group_of(worse) is None


@pytest.mark.parametrize("strange", ["7-0", "x", f"{int(AT.timestamp())}-99", "--", "²-³"])
def test_an_address_of_another_look_leads_to_the_cards(
    screen: Screen, world: World, model_id: int, strange: str
) -> None:
    looked(world, [shortcut(world)])
    checks(screen, model_id, finding=strange)
    assert screen.has("check_open_0") and not screen.errors


def test_what_changed_since_makes_the_findings_out_of_date(
    screen: Screen, world: World, model_id: int
) -> None:
    looked(world, [shortcut(world)])
    relabel(world, world.image_ids[0][0], world.class_ids[1])
    shown = checks(screen, model_id).words
    assert "Out of date" in shown and "Labels changed since" in shown
    assert screen.test.button(key="checks_again").proto.type == "primary"
    screen.press("checks_again")
    assert jobs.list_jobs(world.app.store, project_id=world.project_id, kinds=["audit"])
    assert screen.has("check_open_0") and not screen.has("checks_again")


def test_the_day_from_which_images_are_new_goes_into_the_next_look(
    screen: Screen, world: World, model_id: int
) -> None:
    looked(world, [])
    checks(screen, model_id)
    screen.test.date_input(key="checks_since").set_value(date(2026, 11, 20)).run()
    screen.press("checks_again")
    with world.app.store.reading() as session:
        payloads = session.scalars(select(Job.payload).where(Job.kind == "audit")).all()
    assert payloads == [{"since": "2026-11-20T00:00:00+00:00"}]


def test_nothing_found_says_so_and_what_could_not_be_told(
    screen: Screen, world: World, model_id: int
) -> None:
    tried = {**CUE, "part": "shortcuts", "p_holm": 0.9}
    looked(world, [], checked=[tried], not_told=[{"part": "drift", "reason": "0 new *images*."}])
    shown = checks(screen, model_id).words
    assert "Nothing stands out" in shown and "does not prove" in shown
    assert "What could not be told" in shown and "Drift: 0 new *images*." in shown
    assert not screen.errors


def test_a_look_that_could_test_nothing_does_not_call_that_good(
    screen: Screen, world: World, model_id: int
) -> None:
    looked(world, [], not_told=[{"part": "all", "reason": "There are no images in use."}])
    shown = checks(screen, model_id).words
    assert "nothing could be tested" in shown and "Nothing stands out" not in shown


def test_a_blind_project_tells_nothing(screen: Screen, world: World, model_id: int) -> None:
    looked(world, [pairs(world), shortcut(world)])
    change_settings(world.app.store, project_id=world.project_id, blind=True)
    shown = checks(screen, model_id).words
    assert "read blind" in shown and not screen.errors
    assert pairs(world).title not in shown and not screen.has("check_open_0")
    checks(screen, model_id, finding=f"{int(AT.timestamp())}-0")
    assert "ann" not in screen.words.split("read blind")[1]


def test_a_pair_is_settled_by_one_button_and_taken_back(
    screen: Screen, app: App, world: World, model_id: int
) -> None:
    a, b = world.image_ids[0][0], world.image_ids[1][0]
    liver, colon = world.class_ids
    looked(world, [pairs(world)])
    checks(screen, model_id).press("check_open_0")
    assert "ann, by an import" in screen.words and "99.0 % alike" in screen.words
    assert screen.test.button(key="check_both_1").label == "Both are colon"
    screen.press("check_both_1")
    assert "Both are colon now" in screen.words and not screen.errors
    assert [get_image(app.store, image_id=i).class_id for i in (a, b)] == [colon, colon]
    screen.press("check_pair_undo")
    assert [get_image(app.store, image_id=i).class_id for i in (a, b)] == [liver, colon]


def test_a_pair_that_somebody_labelled_meanwhile_is_not_overwritten(
    screen: Screen, app: App, world: World, model_id: int
) -> None:
    a = world.image_ids[0][0]
    looked(world, [pairs(world)])
    checks(screen, model_id).press("check_open_0")
    relabel(world, a, world.class_ids[1])
    rev = get_image(app.store, image_id=a).rev
    screen.press("check_both_0")  # both are liver
    assert "Somebody labelled" in screen.words
    assert get_image(app.store, image_id=a).rev == rev


def test_a_pair_of_which_one_lost_its_label_takes_the_other_ones(
    screen: Screen, app: App, world: World, model_id: int
) -> None:
    a, b = world.image_ids[0][0], world.image_ids[1][0]
    looked(world, [pairs(world)])
    receipt = labels.record_events(
        app.store, project_id=world.project_id, annotator="Bob",
        events=[
            {"client": "a-browser", "seq": 1, "action": "one", "image_id": a, "kind": "unsure",
             "source": "human", "sha": ""}
        ],
    )  # fmt: skip
    assert not receipt.rejected, receipt
    checks(screen, model_id).press("check_open_0")
    assert screen.test.button(key="check_both_0").label == "Both are colon"
    screen.press("check_both_0")
    assert [get_image(app.store, image_id=i).class_id for i in (a, b)] == [world.class_ids[1]] * 2


def test_a_pair_can_be_called_different_pictures(
    screen: Screen, app: App, world: World, model_id: int
) -> None:
    a, b = world.image_ids[0][0], world.image_ids[1][0]
    with app.store.writing() as session:
        session.add(NearPair(image_a=a, image_b=b, project_id=world.project_id, similarity=0.99))
    looked(world, [pairs(world)])
    checks(screen, model_id).press("check_open_0").press("check_apart")
    assert "Noted as different pictures" in screen.words and not screen.errors
    with app.store.reading() as session:
        assert session.get_one(NearPair, (a, b)).answer == "apart"
