"""The kept answer to which kinds of files a project has: always what the rows say."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from cnsapp.bootstrap import App
from cnsapp.services import exclusion, file_kinds, jobs
from cnsapp.services.projects import create_project
from db.models import Image, Job
from db.queries import add_to_tally, set_status

KINDS: list[dict[str, Any]] = [
    {"format": "PNG", "samples": "uint8", "bits": 8, "pages": 1, "channels": 1, "alpha": False},
    {"format": "PNG", "samples": "uint8", "bits": 8, "pages": 1, "channels": 1, "alpha": True},
    {"format": "TIFF", "samples": "uint16", "bits": 16, "pages": 3, "channels": 2, "alpha": False},
    {"format": "TIFF", "bits": 12},  # from before samples and channels were noted
    {},
]


class Rows:
    """A project to whose images rows are added without files."""

    def __init__(self, app: App) -> None:
        self.app, self.store = app, app.store
        self.project_id = create_project(app.store, name="p").id
        self.n = 0

    def add(self, *kinds: int, seen: str = "", **more: Any) -> list[int]:
        """Add an image of each of these kinds."""
        ids = []
        with self.store.writing() as session:
            for kind in kinds:
                self.n += 1
                facts = KINDS[kind] and {**KINDS[kind], "width": 9, "notes": [f"note {self.n}"]}
                row = Image(
                    project_id=self.project_id, sha256=f"{self.n:064x}", file_name=f"{self.n}.x",
                    width=9, height=9, stored_path="images/none", n_bytes=1, facts=facts, seen=seen,
                    **more,
                )  # fmt: skip
                session.add(row)
                session.flush()
                ids.append(row.id)
            add_to_tally(session, self.project_id, {"images": len(kinds)})
        return ids

    def mark(self, ids: list[int], status: str) -> None:
        """Give images another status, as a check of the files does."""
        with self.store.writing() as session:
            kind = "found" if status == "ok" else status
            set_status(session, self.project_id, ids, status, kind=kind, who="check")

    def due(self) -> Counter[str]:
        """Count row by row, in Python: what the answer must be."""
        found: Counter[str] = Counter()
        with self.store.reading() as session:
            for row in session.scalars(select(Image).where(Image.project_id == self.project_id)):
                if row.status in ("ok", "excluded"):
                    known = {k: row.facts[k] for k in file_kinds.FACTS if k in row.facts}
                    known["alpha"] = bool(known.get("alpha"))
                    found[json.dumps([known, row.seen], sort_keys=True)] += 1
        return found

    def said(self) -> Counter[str]:
        """Return the answer as another process would get it, and check its examples."""
        file_kinds._answers.clear()
        found: Counter[str] = Counter()
        for kind in file_kinds.file_kinds(self.store, project_id=self.project_id):
            key = json.dumps([kind.facts, kind.seen], sort_keys=True)
            assert key not in found
            found[key] = kind.n
            assert kind.examples
            with self.store.reading() as session:
                for row in session.scalars(select(Image).where(Image.id.in_(kind.examples))):
                    assert row.status in ("ok", "excluded")
                    assert row.seen == kind.seen
                    assert all(row.facts.get(k) == v for k, v in kind.facts.items() if v)
        return found


@pytest.fixture
def rows(app: App) -> Rows:
    """Return a project without images."""
    return Rows(app)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows with each count of all rows."""
    times: list[int] = []
    real = file_kinds._Kept.count_all

    def noted(kept: file_kinds._Kept) -> file_kinds.Kinds:
        times.append(1)
        return real(kept)

    monkeypatch.setattr(file_kinds._Kept, "count_all", noted)
    return times


def test_new_rows_are_added_to_what_was_kept(rows: Rows, counted: list[int]) -> None:
    rows.add(0, 0, 1, 2)
    assert rows.said() == rows.due()
    rows.add(2, 3, 4, 0)
    rows.add(2, seen="0badcafe")
    assert rows.said() == rows.due()
    assert rows.said() == rows.due()
    assert len(counted) == 1, "all rows were counted again"


def test_images_that_are_missing_or_excluded_or_back_cost_no_new_count(
    rows: Rows, counted: list[int]
) -> None:
    ids = rows.add(*[0, 1, 2, 3, 4] * 4)
    assert rows.said() == rows.due()
    rows.mark([ids[0], ids[1], ids[6], ids[11], ids[16]], "missing")  # all of a kind
    rows.mark([ids[2]], "changed")
    assert rows.said() == rows.due()
    exclusion.exclude(rows.store, project_id=rows.project_id, image_ids=ids[3:5], who="maria")
    assert rows.said() == rows.due()
    rows.mark(ids, "ok")
    assert rows.said() == rows.due()
    assert len(counted) == 1


def test_a_kind_whose_first_and_last_are_lost_shows_another(rows: Rows) -> None:
    ids = rows.add(0, 2, 2, 2, 0)
    rows.said()
    rows.mark([ids[1], ids[3]], "missing")
    assert rows.said() == rows.due()
    deep = [k for k in file_kinds.file_kinds(rows.store, project_id=rows.project_id) if k.is_deep]
    assert [kind.examples for kind in deep] == [(ids[2],)]


def test_when_nearly_all_is_lost_the_rest_is_counted(rows: Rows) -> None:
    ids = rows.add(*[0, 2] * 5)
    rows.said()
    rows.mark(ids[:9], "missing")
    assert rows.said() == rows.due()
    rows.mark(ids, "missing")
    assert rows.said() == Counter()


@pytest.mark.parametrize("damage", ["{", '{"of": 1}', "[]", ""])
def test_a_damaged_file_is_not_used(rows: Rows, damage: str) -> None:
    rows.add(0, 1, 2)
    rows.said()
    path = rows.store.path("thumbs", "kinds", f"{rows.project_id}.json")
    path.write_text(damage)
    assert rows.said() == rows.due()
    assert json.loads(path.read_text())["kinds"]  # and it is good again


def test_the_file_of_another_database_is_not_used(rows: Rows, tmp_path: Path) -> None:
    from cnsapp.bootstrap import open_app
    from cnsapp.settings import Settings

    rows.add(0, 1, 2)
    rows.said()
    name = ("thumbs", "kinds", f"{rows.project_id}.json")
    other = Rows(open_app(Settings(home=tmp_path / "other", start_worker=False)))
    other.add(2, 2, 2)
    assert other.project_id == rows.project_id
    other.store.path(*name).parent.mkdir(parents=True, exist_ok=True)
    other.store.path(*name).write_bytes(rows.store.path(*name).read_bytes())
    assert other.said() == other.due()
    other.store.engine.dispose()


def test_images_read_again_are_counted_again(rows: Rows, counted: list[int]) -> None:
    ids = rows.add(2, 2, 2)
    rows.said()
    job = jobs.submit_job(rows.store, kind="reread", project_id=rows.project_id)
    change = update(Image).where(Image.id == ids[0]).values(seen="abc", facts=KINDS[0])
    with rows.store.writing() as session:
        session.execute(change)
    assert rows.said() == rows.due()  # it runs: nothing that was kept is believed
    with rows.store.writing() as session:
        session.execute(change.where(True).values(seen="abd"))
    file_kinds.keep_kinds(rows.store, project_id=rows.project_id, reread=job)
    with rows.store.writing() as session:
        session.get_one(Job, job).state = "done"
    n = len(counted)
    assert rows.said() == rows.due()
    assert len(counted) == n, "what the job kept was not used"


def test_a_row_that_comes_late_with_a_lower_number_is_not_forgotten(rows: Rows) -> None:
    rows.add(0, 0)
    with rows.store.writing() as session:
        session.execute(update(Image).where(Image.id == 2).values(id=9))
    rows.said()
    rows.add(1, id=5)  # committed after 9 was seen, as a server with several writers may do
    assert rows.said() == rows.due()


def test_any_order_of_changes_gives_what_the_rows_say(rows: Rows) -> None:
    chance = random.Random(7)
    ids: list[int] = []
    for _turn in range(60):
        act = chance.choice(["add", "add", "lose", "find", "exclude", "ask"])
        some = chance.sample(ids, min(len(ids), chance.randint(1, 6)))
        if act == "add":
            ids += rows.add(*chance.choices(range(len(KINDS)), k=chance.randint(1, 5)))
        elif act == "lose":
            rows.mark(some, chance.choice(["missing", "changed"]))
        elif act == "find":
            rows.mark(some, "ok")
        elif act == "exclude" and some:
            exclusion.exclude(rows.store, project_id=rows.project_id, image_ids=some, who="m")
        else:
            assert rows.said() == rows.due()
    assert rows.said() == rows.due()
