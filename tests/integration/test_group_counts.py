"""Groups and labels of each class, counted by jumping along an index, beside a plain count."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from sqlalchemy import select, text

from cnsapp.bootstrap import App
from cnsapp.services import images, training
from db.models import Image
from db.queries import groups_among, set_status
from tests.integration.worlds import World, make_world


def make_groups(app: App) -> World:
    world = make_world(app, {"a": 9, "b": 7, "c": 5, "none": 0}, unlabelled=8)
    rng = np.random.default_rng(0)
    names = ["P 1", "p 1", "P10", "P2", "Ä", "ä", "", "=x", None, None]
    with app.store.writing() as session:
        for image in session.scalars(select(Image)):
            image.group_key = names[int(rng.integers(len(names)))]
    with app.store.writing() as session:
        out = [world.image_ids[0][0], world.image_ids[1][1], world.image_ids[4][0]]
        set_status(
            session, world.project_id, out, "excluded", kind="exclude", who="Ada", reason="blurred"
        )
    return world


def test_readiness_counts_what_a_plain_count_finds(app: App) -> None:
    world = make_groups(app)
    n: dict[int | None, int] = defaultdict(int)
    groups: dict[int | None, set[str]] = defaultdict(set)
    with app.store.reading() as session:
        for image in session.scalars(select(Image)):
            if image.status == "ok" and image.current_state == "label":
                n[image.current_class_id] += 1
                if image.group_key is not None:
                    groups[image.current_class_id].add(image.group_key)
    ready = training.readiness(app.store, project_id=world.project_id)
    assert [(c.id, count) for c, count in ready.per_class] == [(c, n[c]) for c in world.class_ids]
    assert ready.n_labelled == 19
    assert ready.n_groups == len(set().union(*groups.values())) >= 6


def test_groups_are_named_once_and_in_order(app: App) -> None:
    world = make_groups(app)
    with app.store.reading() as session:
        plain = {
            image.group_key
            for image in session.scalars(select(Image))
            if image.status == "ok" and image.group_key is not None
        }
    names = images.group_names(app.store, project_id=world.project_id)
    assert names == sorted(plain)
    assert images.group_names(app.store, project_id=world.project_id, limit=3) == sorted(plain)[:3]
    assert images.group_names(app.store, project_id=world.project_id + 1) == []


def test_no_count_of_groups_reads_the_rows(app: App) -> None:
    make_groups(app)
    labelled = (
        Image.project_id == 1, Image.status == "ok", Image.current_state == "label",
        Image.current_class_id == 1,
    )  # fmt: skip
    for where in (labelled, labelled[:2]):
        statement = groups_among(*where).compile(
            app.store.engine, compile_kwargs={"literal_binds": True}
        )
        with app.store.engine.connect() as connection:
            plan = [row[3] for row in connection.execute(text(f"EXPLAIN QUERY PLAN {statement}"))]
        steps = [step for step in plan if "image" in step]
        assert len(steps) == 2
        assert all("USING COVERING INDEX" in step for step in steps), plan
        assert any("group_key>?" in step for step in steps), plan
