"""What Review, the label errors and the audit say on PostgreSQL: the same as on SQLite, always."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from cnsapp.bootstrap import App, open_app
from cnsapp.jobs.running import run_here
from cnsapp.services import explaining, jobs, labels, metadata
from cnsapp.services.audit import audit_view, finding_images, queue_audit
from cnsapp.services.changes import outcome_images, two_models
from cnsapp.services.evaluation import evaluate_model
from cnsapp.services.exclusion import exclude
from cnsapp.services.images import ImageFilter
from cnsapp.services.kept import Kept
from cnsapp.services.label_changes import changed_images, labels_since, labels_since_model
from cnsapp.services.label_errors import confirm, correct, list_suspects, summary
from cnsapp.services.label_news import news
from cnsapp.services.opinions import opinions
from cnsapp.services.readings import keep_answers
from cnsapp.services.retraining import retrain_hint
from cnsapp.services.review import confusion
from cnsapp.services.review_filter import ORDERS, ReviewFilter
from cnsapp.services.review_image import review_image
from cnsapp.services.review_list import list_batches, list_review, step
from cnsapp.services.review_matrix import review_matrix
from cnsapp.services.sorting import Order, sorted_images
from cnsapp.services.typical import class_gallery
from cnsapp.settings import Settings
from db.models import Image
from db.session import PATIENCE
from tests.integration.test_postgres import lab as lab
from tests.integration.test_postgres import postgres as postgres
from tests.integration.worlds import World, add_model, make_world, relabel
from tests.looks import index_of

TIMES = {"at", "first", "until", "made_at", "created_at", "last_at"}  # differ from run to run
NUMBERS = {"event_id", "rev", "job"}  # a server leaves numbers out where it inserts nothing
LIMIT = 60.0  # seconds, of a wait for another thread


def small_world(app: App) -> World:
    """Return 24 images of three classes with a column, sorted by looks."""
    world = make_world(app, {"liver": 8, "lung": 8, "kid*ney": 8}, n_groups=4, side=16)
    kinds = [k for k, ids in enumerate(world.image_ids) for _ in ids]
    kinds[0] = 1  # liver 0 lies among the lungs
    rows = np.eye(8)[kinds] + 0.05 * np.random.default_rng(0).normal(size=(len(kinds), 8))
    index_of(app.store, world.project_id, rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return world


def models_of(world: World) -> tuple[int, int]:
    """Return an older model and a newer one, which fixed one answer and broke another."""
    liver, lung, kidney = world.class_ids
    a, b, c = world.image_ids[:3]
    right = [(i, k, k, 0.9) for k, ids in zip(world.class_ids, (a, b, c), strict=True) for i in ids]
    wrong = {a[0]: lung, b[0]: kidney}
    older = [(i, k, wrong.get(i, said), p) for i, k, said, p in right]
    wrong = {a[0]: lung, c[0]: liver}
    newer = [(i, k, wrong.get(i, said), 0.8) for i, k, said, p in right]
    return add_model(world, older), add_model(world, newer)


def plain(found: Any) -> Any:
    """Return an answer as data that can be compared, without moments and numbers of events."""
    if is_dataclass(found) and not isinstance(found, type):
        there = {f.name: getattr(found, f.name) for f in fields(found)}
        return {k: plain(v) for k, v in there.items() if k not in TIMES | NUMBERS}
    if isinstance(found, np.ndarray):
        return plain(found.tolist())
    if isinstance(found, Mapping):
        return {str(k): plain(v) for k, v in found.items() if k not in TIMES | NUMBERS}
    if isinstance(found, list | tuple | set | frozenset):
        return [plain(one) for one in found]
    if isinstance(found, datetime):
        return "a moment"
    return round(found, 9) if isinstance(found, float) else found


def told(app: App) -> dict[str, Any]:
    """Do and ask everything once, in the order of a working day; return all that was said."""
    world = small_world(app)
    store, project, (liver, lung, _) = app.store, world.project_id, world.class_ids
    csv = app.settings.root / "columns.csv"
    names = [f"class{k}/{k * 8 + i + 1}.png" for k in range(3) for i in range(8)]
    lines = [f"{name},{'ABC'[i % 3]},{i / 2}" for i, name in enumerate(names)]
    csv.write_text("\n".join(["file,scanner,age", *lines]), encoding="utf-8")
    metadata.add_metadata(store, project_id=project, csv=csv, who="ann")
    older, newer = models_of(world)
    said: dict[str, Any] = {}
    ask: dict[str, Any] = {"model_id": newer}

    def look(when: str) -> None:
        for truth in ("trained", "current"):
            for meta in ((), (("scanner", "A"),), (("age", 2.0, None),)):
                wanted = ReviewFilter(truth=truth, images=ImageFilter(meta=meta))
                key = f"{when} {truth} {meta}"
                said[f"matrix {key}"] = review_matrix(store, wanted=wanted, **ask)
                for order in ORDERS:
                    said[f"list {order} {key}"] = list_review(
                        store, wanted=wanted, order=order, limit=5, **ask
                    )
        for show in ("wrong", "right", "changed", "elsewhere"):
            wanted = ReviewFilter(show=show)
            said[f"list {show} {when}"] = list_review(store, wanted=wanted, **ask)
        shown = {"image_id": world.image_ids[1][1], **ask}
        said[f"step {when}"] = step(store, wanted=ReviewFilter(), order="loss", **shown)
        for only in (None, "ann", "nobody"):
            said[f"image {only} {when}"] = review_image(store, only=only, **shown)
        said[f"errors {when}"] = summary(store, **ask), list_suspects(store, show="all", **ask)
        said[f"gallery {when}"] = class_gallery(store, class_id=liver, **ask)
        found = two_models(store, older=older, newer=newer)
        said[f"models {when}"] = (
            found,
            [
                outcome_images(store, found, outcome=outcome)
                for outcome in ("fixed", "broken", "still_wrong", "both_right")
            ],
        )
        changes = labels_since_model(store, **ask)
        said[f"labels {when}"] = changes, changed_images(store, changes)
        said[f"hint {when}"] = retrain_hint(store, **ask)
        said[f"scores {when}"] = [
            evaluate_model(store, newer, truth=truth, by="scanner").scores
            for truth in ("trained", "current")
        ]

    look("before")
    said["batches"] = [batch.n for batch in list_batches(store, **ask)]
    job_id = queue_audit(store, project_id=project)
    assert queue_audit(store, project_id=project) == job_id
    run_here(app, job_id)
    assert jobs.get_job(store, job_id=job_id).state == "done"
    seen = audit_view(store, project_id=project)
    said["audit"] = (
        seen,
        [
            finding_images(store, project_id=project, number=n, made_at=seen.made_at)
            for n in range(len(seen.findings))
        ],
    )
    middle = datetime.now().astimezone()
    act: dict[str, Any] = {"who": "bob", "client": "bob-day-1", **ask}
    confirm(store, image_id=world.image_ids[2][0], seq=1, **act)
    correct(store, image_id=world.image_ids[0][0], class_id=lung, seq=2, **act)
    relabel(world, world.image_ids[1][0], liver)
    exclude(store, project_id=project, image_ids=[world.image_ids[1][2]], who="ann")
    look("after")
    said["labels of the day"] = labels_since(store, project_id=project, moment=middle)
    said["audit after"] = audit_view(store, project_id=project).changed
    said["offers"] = explaining.methods_for(app, model_id=newer)
    one = explaining.request_map(app, image_id=world.image_ids[0][0], target_class=lung, **ask)
    assert one.job_id == explaining.request_map(
        app, image_id=world.image_ids[0][0], target_class=lung, **ask
    ).job_id  # fmt: skip
    many = explaining.request_maps(app, image_ids=world.image_ids[0], **ask)
    assert None not in (one.job_id, many.job_id)
    said["maps"] = one.key, [wish.key for wish in many.wishes]
    said["sample"] = explaining.sample_images(store, **ask)
    said["sure"] = explaining.probabilities(store, image_id=world.image_ids[0][0], **ask)
    return {key: plain(one) for key, one in said.items()}


def test_everything_of_review_says_the_same_as_on_sqlite(
    lab: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_app(Settings(home=tmp_path / "sqlite", start_worker=False))
    shuffles = {"seed": 0, "n_shuffles": 19, "check": lambda: None}
    monkeypatch.setattr("cnsapp.domain.guessing.guess.__kwdefaults__", shuffles)
    here, there = told(app), told(lab)
    app.store.engine.dispose()
    assert here.keys() == there.keys()
    for key, said in here.items():
        assert there[key] == said, key
    matrix = there["matrix after current ()"]
    assert matrix["n"] == 23  # one of the 24 is excluded
    assert there["errors after"][0]["n_corrected"] == 1
    assert there["labels of the day"]["n_changed"] == 2


def asked(lab: App, world: World, model_id: int) -> dict[str, Callable[[], Any]]:
    """Return everything that is kept up to the newest event, each as a question."""
    store, project = lab.store, world.project_id
    now = ReviewFilter(truth="current")
    lungs = ImageFilter(class_id=world.class_ids[1])
    return {
        "matrix": lambda: review_matrix(store, model_id=model_id, wanted=now).counts,
        "list": lambda: [
            (i.id, i.label_now) for i in list_review(store, model_id=model_id, wanted=now).items
        ],
        "old matrix": lambda: confusion(store, model_id=model_id, truth="current").counts,
        "errors": lambda: asdict(summary(store, model_id=model_id)),
        "gallery": lambda: plain(
            class_gallery(store, model_id=model_id, class_id=world.class_ids[1])
        ),
        "scores": lambda: plain(evaluate_model(store, model_id, truth="current").scores),
        "opinions": lambda: opinions(store, project, False).said.tolist(),
        "sorted": lambda: [
            i.id
            for i in sorted_images(
                store, project_id=project, filter=lungs, order=Order("name")
            ).items
        ],
    }


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same project", "another project"])
def test_a_label_that_is_begun_first_and_stored_last_is_overlooked_by_nothing_kept(
    lab: App, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    """The quick label changes no count, for whose row it would wait in any case."""
    world = small_world(lab)
    other = make_world(lab, {"bone": 1}, name="other", side=16) if elsewhere else world
    _, model_id = models_of(world)
    store, project, lung = lab.store, world.project_id, world.class_ids[1]
    slow, quick = world.image_ids[0][2], other.image_ids[0][-1]
    questions = asked(lab, world, model_id)
    for ask in questions.values():
        ask()  # kept from here on
    is_written, go_on = threading.Event(), threading.Event()

    def held(session: Any, project_id: int, images: Any) -> None:
        """Stand still in the transaction, with the event of the slow one written."""
        keep_answers(session, project_id, images)
        if slow in images:
            is_written.set()
            assert go_on.wait(LIMIT)

    monkeypatch.setattr(labels, "keep_answers", held)

    def label(of: World, image_id: int, class_id: int, who: str) -> None:
        event = {
            "client": f"{who}-client", "seq": 1, "image_id": image_id, "kind": "label",
            "class_id": class_id, "source": "human", "action": f"{who}-client:1",
        }  # fmt: skip
        labels.record_events(store, project_id=of.project_id, annotator=who, events=[event])

    since = labels.high_water(store)
    acts = (world, slow, lung, "bob"), (other, quick, other.class_ids[0], "cid")
    people = [threading.Thread(target=label, args=act) for act in acts]
    people[0].start()
    assert is_written.wait(LIMIT)
    people[1].start()
    until = time.monotonic() + LIMIT
    while people[1].is_alive() and not waiting(lab):  # it is stored at once, or waits its turn
        assert time.monotonic() < until
        time.sleep(0.01)
    heard = news(store, project_id=project, annotator="ann", since=since)
    for ask in questions.values():
        ask()  # kept anew, in between
    go_on.set()
    for one in people:
        one.join(LIMIT)
    heard_later = news(store, project_id=project, annotator="ann", since=heard.as_of)
    told_of = {image.id for part in (heard, heard_later) for image in part.images}
    assert told_of == ({slow} if elsewhere else {slow, quick})
    found = {name: ask() for name, ask in questions.items()}
    monkeypatch.setattr(Kept, "look", lambda *_: None)
    for name, ask in questions.items():
        assert found[name] == ask(), name
    assert dict(found["list"])[slow] == lung and slow in found["sorted"]


def waiting(lab: App) -> bool:
    """Say whether somebody waits for a lock."""
    with lab.store.engine.connect() as connection:
        return bool(connection.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))


def test_a_look_sees_one_state_and_a_writer_that_waits_too_long_is_told(
    lab: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(lab, {"liver": 1}, side=16)
    image_id, names = world.image_ids[0][0], []
    with lab.store.reading() as session:
        names.append(session.get_one(Image, image_id).file_name)
        with lab.store.writing() as other:
            other.get_one(Image, image_id).file_name = "another.png"
        names.append(session.execute(text("SELECT file_name FROM image")).scalar_one())
    assert names == ["class0/1.png"] * 2
    assert PATIENCE == 15
    monkeypatch.setattr("db.session.PATIENCE", 1)
    event = {
        "client": "bob-client", "seq": 1, "image_id": image_id, "kind": "unsure",
        "source": "human", "action": "bob-client:1",
    }  # fmt: skip
    with (
        lab.store.writing(),
        pytest.raises(Exception, match="The database is busy or out of reach"),
    ):
        labels.record_events(
            lab.store, project_id=world.project_id, annotator="bob", events=[event]
        )
