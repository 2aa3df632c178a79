"""Lists and matrices of random stores against a plain reading of the same rows, one by one."""

from __future__ import annotations

from itertools import product
from math import inf, log
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from cnsapp.bootstrap import App
from cnsapp.services import classes, exclusion
from cnsapp.services.review_filter import ReviewFilter
from cnsapp.services.review_list import list_review
from cnsapp.services.review_matrix import review_matrix
from db.models import Image, LabelClass, Model, Prediction
from tests.integration.test_review_list import add_predictions
from tests.integration.worlds import World, make_world, relabel

PARENTS = ("Digestive", "Digestive", "Lymphatic")


class Oracle:
    """What a list must be, from the rows themselves, with loops and dictionaries."""

    def __init__(self, world: World, model_id: int) -> None:
        with world.app.store.reading() as session:
            self.classes = {row.id: row for row in session.scalars(select(LabelClass))}
            self.model = session.get_one(Model, model_id)
            self.rows = [
                (prediction, image)
                for prediction, image in session.execute(
                    select(Prediction, Image)
                    .join(Image, Image.id == Prediction.image_id)
                    .where(Prediction.model_id == model_id)
                )
            ]
            session.expunge_all()
        self.known = [self.counts_as(i) for i in self.model.class_ids]

    def counts_as(self, class_id: int | None) -> int | None:
        while class_id is not None and not self.classes[class_id].active:
            class_id = self.classes[class_id].merged_into
        return class_id

    def key(self, class_id: int | None, level: str) -> Any:
        """Return what a class is at a level, None where the model knows it not."""
        there = self.counts_as(class_id)
        if there is None:
            return None
        if level == "classes":
            return there if there in self.known else None
        own = self.classes[there].parent or self.classes[there].name
        known = {self.classes[i].parent or self.classes[i].name for i in self.known if i}
        return own if own in known else None

    def judged(self, truth: str, level: str) -> list[dict[str, Any]]:
        found = []
        for prediction, image in self.rows:
            if image.status != "ok":
                continue
            now = image.current_class_id if image.current_state == "label" else None
            then = prediction.label_class_id
            p: dict[Any, float] = {}
            for class_id, value in zip(self.model.class_ids, prediction.probabilities, strict=True):
                at = self.key(class_id, level)
                p[at] = p.get(at, 0.0) + value
            label = self.key(then if truth == "trained" else now, level)
            said = self.key(prediction.class_id, level)
            best = sorted(p.values(), reverse=True)
            of_label = p.get(label, 0.0)
            found.append(
                {
                    "id": image.id,
                    "label": label,
                    "said": said,
                    "confidence": -p[said],
                    "margin": best[0] - best[1],
                    "entropy": sum(v * log(v) for v in p.values() if v > 0),
                    "loss": inf if label is None else log(of_label) if of_label > 0 else -inf,
                    "image": 0.0,
                    "changed": self.counts_as(then) != self.counts_as(now),
                }
            )
        return found


def shown(row: dict[str, Any], show: str) -> bool:
    counts = row["label"] is not None
    return {
        "all": True,
        "wrong": counts and row["label"] != row["said"],
        "right": counts and row["label"] == row["said"],
        "changed": bool(row["changed"]),
        "elsewhere": not counts,
    }[show]


def random_world(app: App, rng: np.random.Generator) -> tuple[World, int]:
    world = make_world(app, {"colon": 5, "liver": 5, "spleen": 5, "skin": 5}, n_groups=4)
    for class_id, parent in zip(world.class_ids, PARENTS, strict=False):  # the last has none
        classes.change_class(app.store, class_id=class_id, who="ann", parent=parent)
    said = []
    for class_id, ids in zip(world.class_ids, world.image_ids, strict=False):
        for image_id in ids:
            p = rng.multinomial(4, rng.dirichlet(np.ones(4))) / 4  # quarters: many ties, exact
            said.append((image_id, class_id, [float(v) for v in p]))
    return world, add_predictions(world, said)


def disturb(world: World, rng: np.random.Generator) -> None:
    """Do what people do after a training, at random."""
    store, ids = world.app.store, [i for part in world.image_ids for i in part]
    who = {"project_id": world.project_id, "who": "ann"}
    for image_id in rng.choice(ids, 6, replace=False).tolist():
        relabel(world, image_id, int(rng.choice(world.class_ids)))
    gone = [int(i) for i in rng.choice(ids, 3, replace=False)]
    exclusion.exclude(store, image_ids=gone, **who)  # type: ignore[arg-type]
    exclusion.restore(store, image_ids=gone[:1], **who)  # type: ignore[arg-type]


def check(world: World, model_id: int) -> None:
    oracle, store = Oracle(world, model_id), world.app.store
    for truth, level in product(("trained", "current"), ("classes", "systems")):
        rows = oracle.judged(truth, level)
        base: dict[str, Any] = {"truth": truth, "level": level}
        orders = [("all", order) for order in ("confidence", "margin", "entropy", "image")]
        shows = ("all", "wrong", "right", "changed", "elsewhere")
        for show, order in [*orders, *((show, "loss") for show in shows)]:
            found = list_review(
                store,
                model_id=model_id,
                wanted=ReviewFilter(show=show, **base),
                order=order,
                limit=99,
            )
            expected = sorted(
                (round(row[order], 12), row["id"]) for row in rows if shown(row, show)
            )
            assert [item.id for item in found.items] == [i for _, i in expected], (
                base,
                show,
                order,
            )
        matrix = review_matrix(store, model_id=model_id, wanted=ReviewFilter(**base))
        for (i, label), (j, said) in product(enumerate(matrix.keys), enumerate(matrix.keys)):
            n = sum(row["label"] == label and row["said"] == said for row in rows)
            assert matrix.counts[i][j] == n, (base, label, said)
        assert matrix.n_elsewhere == sum(row["label"] is None for row in rows)
        assert matrix.n_changed == sum(row["changed"] for row in rows)


@pytest.mark.parametrize("seed", range(3))
def test_any_store_is_read_as_its_rows_say(app: App, seed: int) -> None:
    rng = np.random.default_rng(seed)
    world, model_id = random_world(app, rng)
    check(world, model_id)
    disturb(world, rng)
    check(world, model_id)
    one, other = (int(i) for i in rng.choice(world.class_ids, 2, replace=False))
    classes.merge_classes(app.store, class_id=one, into=other, who="ann")
    check(world, model_id)
    disturb_again = int(rng.choice([i for i in world.class_ids if i != one]))
    relabel(world, world.image_ids[0][0], disturb_again)
    check(world, model_id)
