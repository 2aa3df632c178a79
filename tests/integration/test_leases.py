"""Leases: never two holders at once, whatever races; and what a crash held comes back."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from cnsapp.bootstrap import App
from cnsapp.services import leases, projects, queueing
from db.models import Lease
from db.session import Store
from db.types import utc_now
from tests.integration.test_labels import World, add_images, make_world
from tests.integration.test_postgres import lab as lab
from tests.integration.test_postgres import postgres as postgres

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path, 40)


def take(store: Store, project_id: int, holder: str, ids: list[int], **more: object) -> set[int]:
    with store.writing() as session:
        return leases.take(session, project_id=project_id, holder=holder, image_ids=ids, **more)  # type: ignore[arg-type]


def test_what_is_leased_is_nobody_elses_until_it_runs_out(world: World) -> None:
    ids, p, store = world.image_ids[:3], world.project_id, world.store
    start = utc_now()
    assert take(store, p, "maria", ids, now=start) == set(ids)
    assert take(store, p, "ben", world.image_ids[:5], now=start) == set(world.image_ids[3:5])
    later = start + timedelta(seconds=leases.LEASE_SECONDS - 1)
    assert take(store, p, "ben", ids, now=later) == set()
    over = start + timedelta(seconds=leases.LEASE_SECONDS + 1)
    assert take(store, p, "ben", ids, now=over) == set(ids)
    assert take(store, p, "maria", ids, now=over) == set(), "now they are Ben's"


def test_who_goes_on_keeps_the_lease(world: World) -> None:
    ids, p, store = world.image_ids[:3], world.project_id, world.store
    start = utc_now()
    for minutes in range(0, 20, 4):
        now = start + timedelta(minutes=minutes)
        assert take(store, p, "maria", ids, now=now) == set(ids)
        assert take(store, p, "ben", ids, now=now + timedelta(minutes=4)) == set()


def test_a_holder_gives_back_its_own_and_nothing_else(world: World) -> None:
    ids, p, store = world.image_ids, world.project_id, world.store
    take(store, p, "maria", ids[:3])
    take(store, p, "ben", ids[3:6])
    with store.writing() as session:
        named = [ids[0], ids[3]]
        assert leases.release(session, project_id=p, holder="maria", image_ids=named) == 1
    assert queueing.release(store, project_id=p, holder="maria") == 2
    assert take(store, p, "carl", ids[:6]) == set(ids[:3])


def test_leases_that_ran_out_are_cleared_away(world: World) -> None:
    ids, p, store = world.image_ids, world.project_id, world.store
    take(store, p, "maria", ids[:3], now=utc_now() - timedelta(hours=1))
    take(store, p, "ben", ids[3:5])
    with store.writing() as session:
        leases.forget_old(session, project_id=p)
    with store.reading() as session:
        assert set(session.scalars(select(Lease.holder))) == {"ben"}


def test_a_crashed_browsers_images_come_back(world: World) -> None:
    asked = {"project_id": world.project_id, "annotator": "m", "strategy": "in-order", "n": 5}
    first = queueing.next_images(world.store, holder="crashed", lease_seconds=0.4, **asked)
    ids = [image.id for image in first]
    others = queueing.next_images(world.store, holder="other", lease_seconds=0.4, **asked)
    assert not set(ids) & {image.id for image in others}
    time.sleep(0.5)
    again = queueing.next_images(world.store, holder="third", lease_seconds=0.4, **asked)
    assert [image.id for image in again] == ids


def scramble(store: Store, project_id: int, people: int) -> list[int]:
    """Let people take images at once until none is left; return all that was handed out."""
    got: list[int] = []
    ready = threading.Barrier(people)

    def work(name: str) -> None:
        ready.wait()
        while True:
            images = queueing.next_images(
                store, project_id=project_id, annotator=name, holder=name, n=3,
                strategy="in-order", exclude=mine[name],
            )  # fmt: skip
            if not images:
                return
            mine[name] += [image.id for image in images]

    mine: dict[str, list[int]] = {f"person {i}": [] for i in range(people)}
    threads = [threading.Thread(target=work, args=(name,)) for name in mine]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ids in mine.values():
        got += ids
    return got


def test_threads_that_take_at_once_get_every_image_once(world: World) -> None:
    got = scramble(world.store, world.project_id, 6)
    assert Counter(got) == Counter(world.image_ids)


CHILD = """
import sys
from pathlib import Path
from db.session import open_store
from cnsapp.services import queueing
url, root, project_id, name = sys.argv[1:]
store = open_store(url, Path(root))
mine = []
print("ready", flush=True)
sys.stdin.readline()
while images := queueing.next_images(store, project_id=int(project_id), annotator=name,
                                     holder=name, n=3, strategy="in-order", exclude=mine):
    mine += [image.id for image in images]
print(*mine)
"""


def processes_scramble(store: Store, project_id: int) -> list[int]:
    """Let two processes take images at once; return all that was handed out."""
    url = store.engine.url.render_as_string(hide_password=False)
    people = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, url, str(store.root), str(project_id), name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )
        for name in ("one", "two")
    ]  # fmt: skip
    for person in people:
        assert person.stdout is not None
        assert person.stdout.readline() == "ready\n"
    got: list[int] = []
    for person in people:
        assert person.stdin is not None
        person.stdin.write("go\n")
        person.stdin.flush()
    for person in people:
        said, _ = person.communicate(timeout=60)
        assert person.returncode == 0
        got += [int(word) for word in said.split()]
    return got


def test_processes_that_take_at_once_get_every_image_once(world: World) -> None:
    got = processes_scramble(world.store, world.project_id)
    assert Counter(got) == Counter(world.image_ids)


def test_leases_and_the_queue_on_postgresql(lab: App) -> None:
    project = projects.create_project(lab.store, name="p", classes=["colon", "liver"])
    ids = add_images(lab.store, project.id, 60)
    assert Counter(scramble(lab.store, project.id, 6)) == Counter(ids)
    for i in range(6):
        queueing.release(lab.store, project_id=project.id, holder=f"person {i}")
    assert Counter(processes_scramble(lab.store, project.id)) == Counter(ids)
    for strategy in queueing.STRATEGIES:
        class_id = projects.list_classes(lab.store, project_id=project.id)[0].id
        wish = queueing.Wish(project.id, "maria", strategy, class_id)
        queueing.hand_out(lab.store, wish, holder="tab", keep=ids[:2], holder_before="one")
        queueing.look_ahead(lab.store, wish)
