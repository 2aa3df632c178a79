"""What may be wrong with the data of a project: the job, from rows to findings, on real stores."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture
from sqlalchemy import select

from cnsapp.bootstrap import App, open_app
from cnsapp.domain.consensus import ConsensusRule
from cnsapp.domain.findings import SEVERITIES, Finding
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.imaging.plain_cues import border, colour
from cnsapp.imaging.store import ImageFolder
from cnsapp.jobs.running import run_here
from cnsapp.services import exclusion, jobs, metadata
from cnsapp.services.audit import AuditView, audit_view, finding_images, queue_audit
from cnsapp.services.classes import add_class, find_class, merge_classes
from cnsapp.services.label_settings import change_settings
from cnsapp.services.projects import create_project
from cnsapp.settings import Settings
from cnsapp.tasks import audit as task
from cnsapp.tasks import audit_sample, audit_shortcuts
from db.models import Image, ImageMeta, ImageQuality, NearPair
from db.types import utc_now
from tests.integration.test_cli import Commands
from tests.integration.worlds import World, add_model, make_world, relabel
from tests.looks import index_of

CLASSES = {"liver": 40, "lung": 40}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Return 80 labelled images of 10 patients who have both classes, and 30 without a label."""
    app = open_app(Settings(home=tmp_path_factory.mktemp("made"), start_worker=False))
    world = make_world(app, CLASSES, unlabelled=30, n_groups=10, side=32)
    app.store.engine.dispose()
    return world


@pytest.fixture
def world(made: World, home: Path) -> Iterator[World]:
    """Return a copy of that world: making it anew takes two seconds."""
    shutil.copytree(made.app.store.root, home)
    app = open_app(Settings(home=home, start_worker=False))
    yield replace(made, app=app)
    app.store.engine.dispose()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shuffle less, for the time; 199 are enough for a p-value below 0.05 after correction."""
    monkeypatch.setattr("cnsapp.domain.guessing.guess.__kwdefaults__", {
        "seed": 0, "n_shuffles": 199, "check": lambda: None,
    })  # fmt: skip


def looked(world: World, **options: Any) -> AuditView:
    """Run the job and return what it found."""
    store = world.app.store
    job_id = queue_audit(store, project_id=world.project_id, **options)
    run_here(world.app, job_id)
    job = jobs.get_job(store, job_id=job_id)
    assert job.state == "done", job.error
    found = audit_view(store, project_id=world.project_id)
    assert (found.state, found.changed) == ("done", [])
    return found


def of_kind(found: AuditView, kind: str) -> list[Finding]:
    return [finding for finding in found.findings if finding.kind == kind]


def cue(found: AuditView, name: str) -> dict[str, Any]:
    (row,) = [row for row in found.checked if name in str(row.get("name"))]
    return row


def labelled(world: World) -> list[int]:
    return [i for ids in world.image_ids[:2] for i in ids]


def sizes(world: World, seed: int, tied: bool) -> None:
    """Give each image a file size, by its class or by chance."""
    rng = np.random.default_rng(seed)
    with world.app.store.writing() as session:
        for kind, ids in enumerate(world.image_ids):
            for image_id in ids:
                mean = 40_000 + 30_000 * kind * tied
                session.get_one(Image, image_id).n_bytes = int(rng.normal(mean, 5_000))


def features(world: World, odd: list[int] | None = None, moved: float = 0.0) -> None:
    """Give each image features: those of `odd` far away, the unlabelled ones moved."""
    ids = sorted(i for part in world.image_ids for i in part)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(len(ids), 8))
    rows[[ids.index(i) for i in odd or []]] += 8
    rows[[ids.index(i) for i in world.image_ids[2]], 0] += moved
    index_of(world.app.store, world.project_id, rows)


def test_a_file_size_that_goes_with_the_label_is_alarmed_and_one_by_chance_is_not(
    world: World,
) -> None:
    sizes(world, 0, tied=True)
    first = looked(world)
    (finding,) = [f for f in of_kind(first, "shortcut") if "size alone" in f.title]
    assert finding.severity == "high"
    assert "chance 0.50, n = 80" in finding.sentence
    assert "p = " in finding.sentence or "p < " in finding.sentence
    assert finding.figures["balanced_accuracy"] > 0.9
    assert finding.figures["n_units"] == 10
    assert finding.figures["follows"] is None  # no model
    assert first.findings[0].severity == "high"

    sizes(world, 1, tied=False)
    assert audit_view(world.app.store, project_id=world.project_id).changed == []
    second = looked(world)
    assert [f for f in of_kind(second, "shortcut") if "size" in f.title] == []
    assert 0.3 < cue(second, "size alone")["balanced_accuracy"] < 0.7


def test_the_day_of_a_file_is_a_cue_but_not_the_second_in_which_it_was_copied(
    world: World,
) -> None:
    def dated(step: float) -> AuditView:
        with world.app.store.writing() as session:
            for kind, ids in enumerate(world.image_ids):
                for image_id in ids:
                    seconds = 1_700_000_000 + kind * step + image_id
                    session.get_one(Image, image_id).source_mtime_ns = int(seconds * 1e9)
        return looked(world)

    copied = dated(1000.0)  # folder by folder, on one day
    assert not any("date" in str(row.get("name")) for row in copied.checked)
    taken = dated(40 * 86_400.0)
    assert any(f.title == "The label can be told from the file's date alone"
               for f in of_kind(taken, "shortcut"))  # fmt: skip


def test_shuffled_cues_alarm_about_as_rarely_as_promised(world: World) -> None:
    sizes(world, 0, tied=False)
    alarms = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        with world.app.store.writing() as session:
            session.query(ImageMeta).delete()
            for image_id in labelled(world):
                for key in "abcde":
                    session.add(
                        ImageMeta(
                            image_id=image_id, key=key, project_id=world.project_id,
                            value=str(rng.integers(0, 3)), number=None,
                        )
                    )  # fmt: skip
        rows = task.read_audit_rows(world.app.store, project_id=world.project_id)
        report = audit_shortcuts.find_shortcuts(
            world.app.store, world.project_id, rows, None, seed, lambda: None
        )
        alarms += any(f.kind == "shortcut" for f in report.findings)
    assert alarms <= 4  # of 20 at a level of 0.05: more in 3 of 1,000


def test_the_model_is_judged_where_the_cue_speaks_against_the_label(world: World) -> None:
    """Of liver, 8 images have the size of lung, and the model takes just these for lung."""
    sizes(world, 0, tied=True)
    liver, lung = world.image_ids[:2]
    with world.app.store.writing() as session:
        for at, image_id in enumerate(liver[:8]):
            session.get_one(Image, image_id).n_bytes = 62_000 + 2_000 * at
    said = [(i, world.class_ids[0], world.class_ids[1 if i in liver[:8] else 0], 0.9)
            for i in liver]  # fmt: skip
    add_model(world, said + [(i, world.class_ids[1], world.class_ids[1], 0.9) for i in lung])
    found = looked(world)
    (finding,) = [f for f in of_kind(found, "shortcut") if "size alone" in f.title]
    follows = finding.figures["follows"]
    assert follows["n_wrong"] == 8
    assert follows["fits"]["accuracy"] > 0.95
    assert follows["against"]["accuracy"] < 0.4
    assert follows["against"]["p"] <= follows["against"]["p_holm"] < 0.05
    assert "so its errors follow this" in finding.sentence
    assert set(finding.image_ids) <= set(liver[:8])
    assert len(finding.image_ids) == follows["n_wrong_as_the_cue"] >= 6
    titles = [f.title for f in of_kind(found, "shortcut")]  # all are of one width and height:
    assert titles == ["The label can be told from the file's size alone"]  # no cue of its own


def test_a_value_that_stands_for_a_label_is_said_to_be_inseparable_from_it(world: World) -> None:
    with world.app.store.writing() as session:
        for kind, scanner in ((0, "Aperio"), (1, "Hamamatsu")):
            for image_id in world.image_ids[kind]:
                session.add(ImageMeta(image_id=image_id, key="scanner", value=scanner, number=None,
                                      project_id=world.project_id))  # fmt: skip
    found = looked(world)
    (finding,) = of_kind(found, "inseparable")
    assert finding.title == "Label and the column “scanner” cannot be told apart"
    assert "“liver” (Aperio), “lung” (Hamamatsu)" in finding.sentence
    assert finding.severity == "high"
    assert finding.n_images == 80
    assert any("scanner" in f.title for f in of_kind(found, "shortcut"))


def test_colour_and_border_are_read_from_thumbnails(world: World) -> None:
    folder = ImageFolder(world.app.store.root)
    rng = np.random.default_rng(0)
    with world.app.store.reading() as session:
        rows = session.execute(select(Image.id, Image.sha256)).all()
    for image_id, sha256 in rows:
        pixels = rng.normal(128, 20, (40, 40, 3))
        if image_id in world.image_ids[0]:
            pixels[:2] = 0  # a black bar on top of liver
        path = folder.thumb_path(sha256)
        path.parent.mkdir(exist_ok=True)
        Picture.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=95)
    found = looked(world)
    assert any(f.title == "The label can be told from the border alone"
               for f in of_kind(found, "shortcut"))  # fmt: skip
    assert cue(found, "colour alone")["n"] == 80


def thumbnails(world: World, leave_out: list[int]) -> None:
    """Give each image a thumbnail; of liver a brighter one."""
    folder = ImageFolder(world.app.store.root)
    rng = np.random.default_rng(0)
    with world.app.store.reading() as session:
        rows = session.execute(select(Image.id, Image.sha256)).all()
    for image_id, sha256 in rows:
        path = folder.thumb_path(sha256)
        path.unlink(missing_ok=True)
        if image_id not in leave_out:
            path.parent.mkdir(exist_ok=True)
            mean = 150 if image_id in world.image_ids[0] else 110
            pixels = rng.normal(mean, 20, (40, 40, 3)).clip(0, 255).astype(np.uint8)
            Picture.fromarray(pixels).save(path, quality=95)


def test_a_class_without_thumbnails_does_not_hide_the_colour_of_the_others(world: World) -> None:
    store, project_id = world.app.store, world.project_id
    add_class(store, project_id=project_id, name="kidney", who="ann")
    kidney = find_class(store, project_id=project_id, name="kidney")
    rare = world.image_ids[1][:12]
    for image_id in rare:
        relabel(world, image_id, kidney.id)
    thumbnails(world, leave_out=rare)
    found = looked(world)
    row = cue(found, "colour alone")
    assert (row["n"], row["n_classes"]) == (68, 2)
    assert any("colour alone" in f.title for f in of_kind(found, "shortcut"))
    thumbnails(world, leave_out=[i for ids in world.image_ids for i in ids])
    reasons = [said["reason"] for said in looked(world).not_told if said["part"] == "shortcuts"]
    assert any(reason.startswith("Colour alone is known of too few images") for reason in reasons)


def test_where_images_were_drawn_a_value_is_not_said_to_be_that_of_every_image(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world.app.store.writing() as session:
        for kind in (0, 1):
            for image_id in world.image_ids[kind]:
                session.add(ImageMeta(image_id=image_id, key="scanner", value=f"S{kind}",
                                      number=None, project_id=world.project_id))  # fmt: skip
    monkeypatch.setattr(audit_sample, "MOST", 60)
    (finding,) = of_kind(looked(world), "inseparable")
    assert "“lung” (S1) that was looked at has one value" in finding.sentence
    assert "by another name" in finding.advice


def test_border_and_colour_of_a_picture_by_hand() -> None:
    pixels = np.full((30, 30, 3), 100, np.uint8)
    pixels[:, 28:, 1] = 40
    assert border(pixels)[[3 * 3 + 1]] == pytest.approx([-60])
    assert border(pixels)[[0, 9, 11]] == pytest.approx([0, 0, 0])
    assert np.isnan(border(pixels[:20])).all()
    assert colour(np.full((4, 4, 3), (1, 2, 3), np.uint8)).tolist() == [1, 2, 3, 0, 0, 0]


def test_look_alikes_with_two_labels_are_listed_with_who_labelled(world: World) -> None:
    liver, lung = world.image_ids[:2]
    pairs = [(liver[0], lung[0], ""), (liver[1], liver[2], ""), (liver[3], lung[1], "apart")]
    with world.app.store.writing() as session:
        for a, b, answer in pairs:
            session.add(NearPair(image_a=a, image_b=b, project_id=world.project_id,
                                 similarity=0.9, answer=answer))  # fmt: skip
        first = session.get_one(Image, liver[5])
        session.get_one(Image, lung[5]).sha256 = first.sha256
    relabel(world, lung[5], world.class_ids[1])
    found = looked(world)
    (finding,) = of_kind(found, "different labels")
    assert (finding.figures["n_pairs"], finding.figures["n_different"]) == (3, 2)
    same, near = finding.figures["pairs"]
    assert (same["similarity"], near["similarity"]) == (1.0, 0.9)
    assert (near["image_a"], near["image_b"]) == (liver[0], lung[0])
    assert (near["class_a"], near["class_b"]) == ("liver", "lung")
    assert same["labelled_by_b"] == "reviewer"
    assert near["labelled_by_a"] == "ann"
    assert set(finding.image_ids) == {liver[0], lung[0], liver[5], lung[5]}

    relabel(world, lung[0], world.class_ids[0])
    stale = audit_view(world.app.store, project_id=world.project_id)
    assert stale.changed == ["Labels changed since."]
    exclusion.exclude(world.app.store, project_id=world.project_id, image_ids=[lung[5]],
                      who="ann", reason="copy")  # fmt: skip
    assert of_kind(looked(world), "different labels") == []


def test_a_patient_that_the_model_fails_on_is_named(world: World) -> None:
    with world.app.store.reading() as session:
        group = dict(session.execute(select(Image.id, Image.group_key)).all())
    said = []
    for kind in (0, 1):
        for image_id in world.image_ids[kind]:
            wrong = group[image_id] == "patient 3"
            answer = world.class_ids[1 - kind if wrong else kind]
            said.append((image_id, world.class_ids[kind], answer, 0.9))
    add_model(world, said)
    assert of_kind(looked(world), "worse group") == []  # 8 images are too few to be tested
    with world.app.store.writing() as session:
        for image_id, name in group.items():
            if name == "patient 4":
                session.get_one(Image, image_id).group_key = "patient 3"
    found = looked(world)
    (finding,) = of_kind(found, "worse group")
    assert finding.title == "The model does worse on Group: patient 3"
    assert "On 16 images of 1 group" in finding.sentence
    assert "right 50 percentage points less often than on the rest" in finding.sentence
    assert finding.figures["p_holm"] < 0.05
    assert finding.figures["smallest_n"] == 10
    assert finding.severity == "high"
    assert set(finding.image_ids) == {i for i in labelled(world) if group[i] == "patient 3"}


def test_a_slice_of_two_patients_may_be_worse_for_these(world: World) -> None:
    """Patients 3 and 4 alone were scanned elsewhere, and the model fails on them."""
    with world.app.store.reading() as session:
        group = dict(session.execute(select(Image.id, Image.group_key)).all())
    elsewhere = {i for i in labelled(world) if group[i] in ("patient 3", "patient 4")}
    said = []
    with world.app.store.writing() as session:
        for kind in (0, 1):
            for i in world.image_ids[kind]:
                session.add(ImageMeta(image_id=i, key="scanner", number=None,
                                      value="new" if i in elsewhere else "old",
                                      project_id=world.project_id))  # fmt: skip
                answer = world.class_ids[1 - kind if i in elsewhere else kind]
                said.append((i, world.class_ids[kind], answer, 0.9))
    add_model(world, said)
    (finding,) = [f for f in of_kind(looked(world), "worse group") if "scanner" in f.title]
    assert finding.sentence.endswith(
        "All its images come from 2 groups: what is worse may be these, not the scanner."
    )


def test_odd_and_unknown_images_are_found_among_labelled_and_new_ones(world: World) -> None:
    odd = [world.image_ids[0][7], *world.image_ids[2][:6]]
    features(world, odd)
    found = looked(world)
    (labelled_one,) = of_kind(found, "odd images")
    assert labelled_one.image_ids[0] == odd[0]
    assert labelled_one.figures["n"] == labelled_one.figures["n_reference"] == 80
    (unknown,) = of_kind(found, "unknown images")
    assert set(unknown.image_ids[:6]) == set(odd[1:])
    assert "of 30 images without a label" in unknown.sentence.lower()
    shown = finding_images(world.app.store, project_id=world.project_id,
                           number=found.findings.index(unknown))  # fmt: skip
    assert [item.id for item in shown] == unknown.image_ids[:50]
    number = found.findings.index(unknown)
    behind = finding_images(world.app.store, project_id=world.project_id, number=number, page=1)
    assert behind == []
    again = looked(world)  # another look ends while somebody reads the first
    assert again.made_at != found.made_at
    exclusion.exclude(world.app.store, project_id=world.project_id,
                      image_ids=unknown.image_ids[:1], who="ann", reason="desk")  # fmt: skip
    looked(world)
    then = finding_images(world.app.store, project_id=world.project_id, number=number,
                          made_at=found.made_at)  # fmt: skip
    assert [item.id for item in then] == unknown.image_ids[:50]
    with pytest.raises(NotFoundError, match="no finding number 0"):
        finding_images(world.app.store, project_id=world.project_id, number=0,
                       made_at=utc_now())  # fmt: skip
    with pytest.raises(NotFoundError, match="no finding number 99"):
        finding_images(world.app.store, project_id=world.project_id, number=99)


def test_with_few_groups_nothing_is_called_more_than_chance(app: App) -> None:
    """Two patients, and later ones who are farther from them than their tiles from each other."""
    world = make_world(app, CLASSES, unlabelled=30, n_groups=2, side=8)
    with app.store.writing() as session:
        for image_id in world.image_ids[2]:
            session.get_one(Image, image_id).group_key = f"later {image_id % 10}"
    features(world, world.image_ids[0][:8], moved=9.0)
    found = looked(world)
    for kind in ("odd images", "unknown images"):
        (finding,) = of_kind(found, kind)
        assert "too few groups to say whether that is more than chance" in finding.sentence
        assert finding.severity == "low"
        assert finding.figures["interval"] is None


def test_odd_images_of_a_project_without_groups_are_told_with_that_word(app: App) -> None:
    world = make_world(app, CLASSES, unlabelled=30, side=8)
    features(world, world.image_ids[2][:20])
    (finding,) = of_kind(looked(world), "unknown images")
    assert "clearly more than chance" in finding.sentence
    assert "No image has a group" in finding.sentence


def later(world: World) -> str:
    """Let the unlabelled images come two days ago, the others ten; return a day between."""
    now = utc_now()
    with world.app.store.writing() as session:
        for kind, ids in enumerate(world.image_ids):
            for image_id in ids:
                row = session.get_one(Image, image_id)
                row.created_at = now - timedelta(days=2 if kind == 2 else 10)
                row.group_key = f"{'new' if kind == 2 else 'old'} {image_id % 8}"
                session.add(ImageQuality(
                    image_id=image_id, project_id=world.project_id,
                    measures={"lightness": 60.0 + image_id % 5 + 20 * (kind == 2), "focus": None},
                ))  # fmt: skip
    return (now - timedelta(days=5)).isoformat()


def test_new_images_of_another_kind_are_drift(world: World) -> None:
    since = later(world)
    features(world, moved=6.0)
    found = looked(world, since=since)
    (finding,) = of_kind(found, "drift")
    assert finding.severity == "high"
    assert (finding.figures["n_old"], finding.figures["n_new"]) == (80, 30)
    assert finding.figures["n_units_new"] == 8
    assert "from the images before with a balanced accuracy" in finding.sentence
    assert "n = 80 old and 30 new" in finding.sentence
    assert set(finding.image_ids) == set(world.image_ids[2])
    (shift,) = of_kind(found, "shift")
    assert shift.title == "New images: brightness is higher"
    assert shift.figures["higher"] == 1.0


def test_new_images_of_the_same_kind_are_no_drift_and_too_few_groups_cannot_tell(
    world: World,
) -> None:
    since = later(world)
    features(world)
    assert of_kind(looked(world, since=since), "drift") == []
    with world.app.store.writing() as session:
        for image_id in world.image_ids[2]:
            session.get_one(Image, image_id).group_key = "one patient"
    found = looked(world, since=since)
    reasons = [said["reason"] for said in found.not_told if said["part"] == "drift"]
    assert reasons == [
        "The new images come from 1 group; 4 are needed, since any patient differs from any other."
    ]


def test_an_empty_project_says_so(app: App) -> None:
    project = create_project(app.store, name="empty", classes=["liver"])
    world = World(app, project.id, [], [])
    assert audit_view(app.store, project_id=project.id).state == "none"
    found = looked(world)
    assert found.findings == []
    assert found.not_told == [{"part": "all", "reason": "There are no images in use."}]
    with pytest.raises(NotFoundError, match="no project number 99"):
        audit_view(app.store, project_id=99)


@pytest.mark.parametrize(
    ("counts", "groups", "said"),
    [
        ({"liver": 30}, 6, "two are needed"),
        ({"liver": 30, "lung": 30}, 1, "two are needed"),  # no class has two groups
        ({"liver": 30, "lung": 30}, 3, "come from 3 groups; 5 are needed"),
        ({"liver": 4, "lung": 4}, 0, "two are needed"),
    ],
)
def test_what_can_not_be_guessed_is_said(
    app: App, counts: dict[str, int], groups: int, said: str
) -> None:
    found = looked(make_world(app, counts, n_groups=groups, side=8))
    (reason,) = [row["reason"] for row in found.not_told if row["part"] == "shortcuts"]
    assert said in reason
    assert of_kind(found, "shortcut") == []


def test_images_without_groups_count_alone_and_the_sentence_says_so(app: App) -> None:
    world = make_world(app, CLASSES, side=8)
    sizes(world, 0, tied=True)
    found = looked(world)
    (finding,) = [f for f in of_kind(found, "shortcut") if "size alone" in f.title]
    assert "No image has a group" in finding.sentence
    assert finding.figures["n_units"] == 80


def test_a_cancelled_look_keeps_the_one_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = world.app.store
    before = looked(world)
    job_id = queue_audit(store, project_id=world.project_id)
    assert queue_audit(store, project_id=world.project_id) == job_id  # asked for twice
    assert audit_view(store, project_id=world.project_id).state == "waiting"

    def cancelled(*arguments: Any) -> Any:
        jobs.cancel_job(store, job_id=job_id)
        monkeypatch.undo()
        monkeypatch.setattr("cnsapp.jobs.context.LOOK_SECONDS", 0.0)
        return audit_shortcuts.find_shortcuts(*arguments)

    monkeypatch.setattr(task, "find_shortcuts", cancelled)
    monkeypatch.setattr("cnsapp.jobs.context.LOOK_SECONDS", 0.0)
    run_here(world.app, job_id)
    assert jobs.get_job(store, job_id=job_id).state == "cancelled"
    after = audit_view(store, project_id=world.project_id)
    assert (after.state, after.made_at) == ("stopped", before.made_at)
    assert after.findings == before.findings


def test_a_look_knows_what_changed_since(world: World) -> None:
    store, project_id = world.app.store, world.project_id
    looked(world)

    def changed() -> list[str]:
        return audit_view(store, project_id=project_id).changed

    add_model(world, [(world.image_ids[0][0], world.class_ids[0], world.class_ids[0], 0.9)])
    assert changed() == ["Another model is the current one since."]
    table = store.root / "table.csv"
    table.write_text("file,stain\nclass0/1.png,H&E\n")
    metadata.add_metadata(store, project_id=project_id, csv=table)
    assert "Columns of metadata changed since." in changed()
    assert looked(world).changed == []
    features(world)
    assert changed() == ["Images were sorted by looks since."]
    assert looked(world).changed == []
    change_settings(store, project_id=project_id, rule=ConsensusRule("majority", 2))
    assert changed() == ["Classes, or the rule for several readers, changed since."]
    change_settings(store, project_id=project_id, rule=ConsensusRule())
    assert changed() == []
    merge_classes(store, class_id=world.class_ids[1], into=world.class_ids[0], who="ann")
    assert changed() == ["Classes, or the rule for several readers, changed since."]
    damaged = max((store.root / "features" / "audit").rglob("*.json"))
    damaged.write_text("{")
    assert "Images were sorted by looks since." in changed()  # the look before it


def test_findings_come_in_the_order_of_their_severity(world: World) -> None:
    sizes(world, 0, tied=True)
    features(world, world.image_ids[2][:3])
    found = looked(world)
    ranks = [SEVERITIES.index(finding.severity) for finding in found.findings]
    assert ranks == sorted(ranks)
    assert sum(found.counts.values()) == len(found.findings) >= 2


def test_a_day_that_is_none_is_refused(world: World) -> None:
    with pytest.raises(InvalidInputError, match="“yesterday” is no day"):
        queue_audit(world.app.store, project_id=world.project_id, since="yesterday")
    with pytest.raises(InvalidInputError, match="is no day"):
        queue_audit(world.app.store, project_id=world.project_id, since="0001-01-01T00:00+05:00")


def test_the_command_prints_findings_and_says_what_it_cannot_tell(world: World, home: Path) -> None:
    sizes(world, 0, tied=True)
    looked(world)
    cns = Commands(home)
    said = cns.json("audit", "--project", "world")
    assert said["counts"]["high"] >= 1
    assert said["changed"] == []
    assert any(row["part"] == "drift" for row in said["not_told"])
    text = cns.run("audit", "--project", "world").stdout
    assert "The label can be told from the file's size alone" in text
    assert "What could not be told:" in text
