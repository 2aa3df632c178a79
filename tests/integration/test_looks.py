"""Similar images, clusters and the map of a project; the index behind them, made and made anew."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors
from sqlalchemy import select, update
from starlette.applications import Starlette
from starlette.testclient import TestClient

from cnsapp.bootstrap import App
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.jobs.running import run_here
from cnsapp.services import (
    exclusion,
    jobs,
    labels,
    looks,
    looks_clusters,
    looks_files,
    looks_status,
    training,
)
from cnsapp.services.labels import import_labels
from cnsapp.ui import looks_http
from db.models import Image, Job, LabelEvent
from tests.integration.test_cli import Commands
from tests.integration.worlds import World, make_world
from tests.looks import index_of, unit_rows

N = 60


@pytest.fixture
def world(app: App) -> World:
    """Return a project of 20 labelled images in two classes and 40 without a label."""
    return make_world(app, {"liver": 12, "colon": 8}, unlabelled=40, side=8)


def ids_of(world: World) -> list[int]:
    """Return all image ids, ascending."""
    return sorted(i for part in world.image_ids for i in part)


def similar(world: World, *image_ids: int, n: int = 10, **options: Any) -> list[tuple[int, float]]:
    """Ask for similar images."""
    found = looks.similar(
        world.app.store, project_id=world.project_id, image_ids=image_ids, n=n, **options
    )
    return [(match.image_id, match.similarity) for match in found]


def new_image(world: World, like: int) -> int:
    """Add the bytes of an image under a second name."""
    with world.app.store.writing() as session:
        old = session.get_one(Image, like)
        row = Image(
            project_id=world.project_id, sha256=old.sha256, file_name=f"copy of {like}.png",
            width=8, height=8, stored_path=old.stored_path, n_bytes=old.n_bytes,
        )  # fmt: skip
        session.add(row)
        session.flush()
        return row.id


def test_similar_images_are_those_of_a_search_through_all(world: World) -> None:
    rows, _ = unit_rows(N)
    ids = index_of(world.app.store, world.project_id, rows)
    search = NearestNeighbors(n_neighbors=N, algorithm="brute", metric="cosine").fit(rows)
    for at in (0, 7, 59):
        apart, near = search.kneighbors(rows[at : at + 1])
        due = [(ids[i], 1 - a) for i, a in zip(near[0], apart[0], strict=True) if i != at][:10]
        found = similar(world, ids[at])
        assert [i for i, _ in found] == [i for i, _ in due]
        np.testing.assert_allclose([s for _, s in found], [s for _, s in due], atol=1e-5)
    several = [3, 11, 40]
    near = search.kneighbors(rows[several].mean(axis=0, keepdims=True))[1][0]
    due_ids = [ids[i] for i in near if i not in several][:10]
    assert [i for i, _ in similar(world, *(ids[i] for i in several))] == due_ids
    assert len(similar(world, ids[0], n=500)) == N - 1


def test_a_long_search_comes_in_parts_and_misses_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, _ = unit_rows(N)
    rows[10:40] = rows[9]  # many equals, where one part ends and the next begins
    ids = index_of(world.app.store, world.project_id, rows)
    whole = similar(world, ids[0], n=N)
    monkeypatch.setattr(looks, "STEP", 3)
    for n in (1, 5, 20, N):
        assert similar(world, ids[0], n=n) == whole[:n]


def test_the_same_bytes_under_two_names_are_both_found(world: World) -> None:
    first = ids_of(world)[4]
    copy = new_image(world, first)
    rows, _ = unit_rows(N + 1)
    rows[N] = rows[4]
    index_of(world.app.store, world.project_id, rows)
    assert similar(world, first, n=1) == [(copy, 1.0)]
    assert similar(world, copy, n=1) == [(first, 1.0)]


def test_what_is_out_of_use_or_labelled_is_left_out_where_asked(world: World) -> None:
    rows, _ = unit_rows(N)
    ids = index_of(world.app.store, world.project_id, rows)
    first, second = (i for i, _ in similar(world, ids[30], n=2))
    exclusion.exclude(
        world.app.store, project_id=world.project_id, image_ids=[first], who="ada", reason="blur"
    )
    assert similar(world, ids[30], n=1)[0][0] == second
    free = {i for i, _ in similar(world, ids[30], n=N, unlabelled_only=True)}
    assert free == set(world.image_ids[2]) - {ids[30], first}


def test_what_cannot_be_compared_is_said(world: World) -> None:
    with pytest.raises(NotFoundError, match="were not sorted by looks yet"):
        similar(world, 1)
    rows, _ = unit_rows(N)
    late = ids_of(world)[-1]
    ids = index_of(world.app.store, world.project_id, rows, leave_out=(late,))
    with pytest.raises(NotFoundError, match=f"Image {late} is not among the images sorted"):
        similar(world, late)
    assert [i for i, _ in similar(world, late, ids[0])] == [i for i, _ in similar(world, ids[0])]
    for bad in ((), (ids[0],)):
        with pytest.raises(InvalidInputError, match="Similar to what"):
            similar(world, *bad, n=0)


def test_vectors_are_unit_rows_in_the_order_of_ids(world: World) -> None:
    rows, _ = unit_rows(N)
    written = index_of(world.app.store, world.project_id, rows)
    ids, found = looks.vectors(world.app.store, project_id=world.project_id)
    assert ids.tolist() == written == ids_of(world)
    np.testing.assert_array_equal(found, rows)


def clusters_of(world: World, **options: Any) -> dict[int, looks.Cluster]:
    """Return the clusters by their numbers, in the order of the list."""
    found = looks.clusters(world.app.store, project_id=world.project_id, **options)
    return {c.id: c for c in found}


def members(world: World, cluster_id: int, **options: Any) -> list[int]:
    """Return the images of a cluster."""
    return looks.cluster_images(
        world.app.store, project_id=world.project_id, cluster_id=cluster_id, **options
    )


def test_clusters_say_how_much_of_them_is_labelled_and_how_purely(world: World) -> None:
    liver, colon = world.class_ids
    kind = np.zeros(N, int)
    by_id = {i: at for at, i in enumerate(ids_of(world))}
    # by hand: cluster 1 has 6 livers, 2 colons and 4 others; cluster 2 has nobody's label
    mixed = world.image_ids[0][:6] + world.image_ids[1][:2] + world.image_ids[2][:4]
    for i in mixed:
        kind[by_id[i]] = 1
    for i in world.image_ids[2][10:35]:
        kind[by_id[i]] = 2
    ratio = np.random.default_rng(0).permutation(N) / N  # every second image is clear
    rows, _ = unit_rows(N)
    index_of(world.app.store, world.project_id, rows, clusters=kind, ratio=ratio)
    found = clusters_of(world)
    one = found[1]
    assert (one.n, one.n_looked_at, one.n_labelled) == (12, 8, 8)
    assert one.per_class == {liver: 6, colon: 2}
    assert one.purity == 0.75
    assert (found[2].n, found[2].n_labelled, found[2].purity) == (25, 0, None)

    clear = ratio < 0.5
    free = set(world.image_ids[2])
    for number, cluster in found.items():
        mine = [i for i in ids_of(world) if kind[by_id[i]] == number]
        due = [i for i in mine if clear[by_id[i]]]
        assert cluster.n_clear == len(due)
        assert cluster.n_clear_unlabelled == len(free & set(due))
    left = [c.n_clear_unlabelled for c in found.values()]
    assert left == sorted(left, reverse=True)
    assert left[0] > left[-1]

    gone = members(world, 1)[0]
    exclusion.exclude(world.app.store, project_id=world.project_id, image_ids=[gone], who="ada")
    assert clusters_of(world)[1].n == 11
    due = sorted(set(mixed) - {gone}, key=lambda i: ratio[by_id[i]])
    assert members(world, 1) == due
    assert members(world, 1, clear_only=True) == [i for i in due if clear[by_id[i]]]
    assert members(world, 1, unlabelled_only=True) == [i for i in due if i in free]
    assert members(world, 1, unlabelled_only=True, clear_only=True) == [
        i for i in due if i in free and clear[by_id[i]]
    ]
    with pytest.raises(NotFoundError, match="no cluster 9"):
        members(world, 8)


def test_previews_are_spread_over_the_clear_images_that_are_left_to_label(world: World) -> None:
    ratio = np.linspace(0, 0.9, N)[np.random.default_rng(4).permutation(N)]
    rows, _ = unit_rows(N)
    index_of(world.app.store, world.project_id, rows, ratio=ratio)
    by_ratio = [ids_of(world)[at] for at in np.argsort(ratio)]
    clear, free = by_ratio[:30], [i for i in by_ratio[:30] if i in world.image_ids[2]]
    assert 12 < len(free) < 28

    def at_sixths(ids: list[int]) -> list[int]:
        return [ids[round(k * (len(ids) - 1) / 5)] for k in range(6)]

    assert clusters_of(world)[0].previews == at_sixths(free)
    assert clusters_of(world, also_labelled=True)[0].previews == at_sixths(clear)
    import_labels(world.app.store, project_id=world.project_id, annotator="ann",
                  rows=[(i, world.class_ids[0]) for i in free])  # fmt: skip
    after = clusters_of(world)[0]
    assert after.n_clear_unlabelled == 0
    assert after.previews == at_sixths(clear)  # nothing is left: what it looks like as a whole


def test_a_cluster_whose_images_all_lie_on_a_border_has_previews_but_nothing_clear(
    world: World,
) -> None:
    ratio = np.where(np.arange(N) < 40, 0.2, 0.95)
    rows, _ = unit_rows(N)
    index_of(world.app.store, world.project_id, rows, clusters=ratio > 0.5, ratio=ratio)
    found = clusters_of(world)
    assert (found[1].n_clear, found[1].n_clear_unlabelled, len(found[1].previews)) == (0, 0, 6)
    assert list(found) == [0, 1]
    index_of(world.app.store, world.project_id, rows, ratio=np.ones(N))
    assert clusters_of(world)[0].n_clear == 0  # one cluster alone


def test_spread_numbers_are_first_last_and_even_between() -> None:
    assert looks_clusters.spread(0, 6).tolist() == []
    assert looks_clusters.spread(3, 6).tolist() == [0, 1, 2]
    assert looks_clusters.spread(6, 6).tolist() == [0, 1, 2, 3, 4, 5]
    assert looks_clusters.spread(11, 6).tolist() == [0, 2, 4, 6, 8, 10]
    for n in range(7, 300):
        found = looks_clusters.spread(n, 6).tolist()
        assert len(set(found)) == 6
        assert (found[0], found[-1]) == (0, n - 1)


def test_the_clear_images_of_a_cluster_are_labelled_as_one_action_and_taken_back(
    world: World,
) -> None:
    store, project = world.app.store, world.project_id
    colon = world.class_ids[1]
    rows, _ = unit_rows(N)
    index_of(store, project, rows, clusters=np.arange(N) % 2)
    version = str(looks.status(store, project_id=project).version)

    def states() -> dict[int, int | None]:
        found = looks.list_items(store, image_ids=ids_of(world))
        return {item.id: item.class_id for item in found}

    before = states()
    wanted = set(members(world, 1, clear_only=True, unlabelled_only=True))
    asked: dict[str, Any] = {
        "project_id": project, "annotator": "bob", "version": version, "cluster_id": 1,
        "class_id": colon, "action": "looks-0001",
    }  # fmt: skip
    receipt = looks.label_clear(store, **asked)
    assert receipt.stored == len(wanted) > 0
    assert looks.label_clear(store, **asked).stored == 0  # sent again
    assert states() == before | dict.fromkeys(wanted, colon)
    with store.reading() as session:
        events = session.scalars(select(LabelEvent).where(LabelEvent.annotator == "bob")).all()
        said = {(e.action, e.source, e.class_id) for e in events}
    assert said == {("looks-0001", "bulk", colon)}
    with pytest.raises(NotFoundError, match="nothing of yours"):
        looks.take_back(store, project_id=project, annotator="ann", action="looks-0001")
    for _ in range(2):  # sent again
        n = looks.take_back(
            store,
            project_id=project,
            annotator="bob",
            action="looks-0001",
            name="undo-001",
        )
        assert n == len(wanted)
    assert states() == before
    with pytest.raises(InvalidInputError, match="could not be taken back"):
        looks.take_back(store, project_id=project, annotator="bob", action="looks-0001", name="x")

    also = set(members(world, 1, clear_only=True))
    again = looks.label_clear(store, **(asked | {"action": "looks-0002", "also_labelled": True}))
    assert again.stored == len(also) > len(wanted)
    assert states() == before | dict.fromkeys(also, colon)
    with pytest.raises(NotFoundError, match="sorted anew meanwhile"):
        looks.label_clear(store, **(asked | {"version": "older", "action": "looks-0003"}))
    with pytest.raises(InvalidInputError, match="“looks-1” is no name of an action"):
        looks.label_clear(store, **(asked | {"action": "looks-1"}))  # none could take it back
    with pytest.raises(InvalidInputError, match="not in this project"):
        looks.label_clear(store, **(asked | {"class_id": 999, "also_labelled": True}))


def test_the_route_labels_clear_images_and_refuses_what_it_does_not_understand(
    world: World,
) -> None:
    store, project = world.app.store, world.project_id
    rows, _ = unit_rows(N)
    index_of(store, project, rows)
    client = TestClient(Starlette(routes=looks_http.routes(world.app)))
    message = {
        "project_id": project, "annotator": "bob", "class_id": world.class_ids[0],
        "cluster_id": 0, "version": looks.status(store, project_id=project).version,
        "also_labelled": False, "action": "looks-00aa",
    }  # fmt: skip
    wanted = len(members(world, 0, clear_only=True, unlabelled_only=True))
    answer = client.post("/api/looks/clear", json=message)
    assert answer.status_code == 200
    assert answer.json()["stored"] == wanted > 0
    assert answer.json()["as_of"] == labels.high_water(store)
    undo = {
        "project_id": project,
        "annotator": "bob",
        "action": "looks-00aa",
        "name": "undo-001",
    }
    assert client.post("/api/looks/undo", json=undo).json() == {"taken_back": wanted}

    for bad in ({"cluster_id": "0"}, {"class_id": True}, {"action": ""}, {"annotator": None},
                {"project_id": -1}, {"version": "x" * 300}):  # fmt: skip
        assert client.post("/api/looks/clear", json=message | bad).status_code == 400
    gone = client.post("/api/looks/clear", json=message | {"cluster_id": 70})
    assert (gone.status_code, gone.json()["permanent"]) == (404, True)
    assert "no cluster 71" in gone.json()["error"]
    abroad = {"Origin": "https://elsewhere.example"}
    for path in ("/api/looks/clear", "/api/looks/undo"):
        assert client.post(path, json=message, headers=abroad).status_code == 403


def test_an_outline_holds_what_half_planes_say(world: World) -> None:
    rows, _ = unit_rows(N)
    places = np.random.default_rng(1).random((N, 2))
    index_of(world.app.store, world.project_id, rows, places=places)
    points = looks.map_points(world.app.store, project_id=world.project_id)
    assert points.places.min() == 0
    assert points.places.max() == 65_535
    spread = places.max(axis=0) - places.min(axis=0)
    seen = points.places.astype(float)
    ratio = (seen.max(axis=0) - seen.min(axis=0)) / spread
    assert ratio[0] == pytest.approx(ratio[1], rel=0.2)  # one scale, but for far points
    corners = np.array([[20_000.5, 9_000.5], [60_000.5, 30_000.5], [25_000.5, 62_000.5]])
    inside = np.ones(N, bool)
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        side = (b[0] - a[0]) * (seen[:, 1] - a[1]) - (b[1] - a[1]) * (seen[:, 0] - a[0])
        inside &= side > 0
    assert 5 < inside.sum() < N - 5
    assert points.inside(corners.tolist()) == points.image_ids[inside].tolist()
    assert points.inside(corners[::-1].tolist()) == points.image_ids[inside].tolist()
    # two squares drawn in one stroke, which cross: the overlap is outside, as in the browser
    square = [(-1.5, -1.5), (65_536.5, -1.5), (65_536.5, 65_536.5), (-1.5, 65_536.5)]
    assert points.inside(square) == ids_of(world)
    assert points.inside(square * 2) == []


def test_the_map_is_coloured_by_class_annotator_group_and_opinion(world: World) -> None:
    rows, _ = unit_rows(N)
    index_of(world.app.store, world.project_id, rows)

    def keys(color_by: str) -> dict[str, int]:
        points = looks.map_points(world.app.store, project_id=world.project_id, color_by=color_by)
        counted = np.bincount(points.codes, minlength=len(points.keys)).tolist()
        assert counted == [key.n for key in points.keys]
        return {key.name: key.n for key in points.keys}

    assert keys("class") == {"No class": 40, "liver": 12, "colon": 8}
    assert keys("annotator") == {"Nobody yet": 40, "ann": 20}
    assert keys("model") == {"No opinion yet": 60}
    with world.app.store.writing() as session:
        for at, i in enumerate(ids_of(world)[:24]):
            image = session.get_one(Image, i)
            image.group_key = f"patient {at % 12 if at < 20 else 0:02}"
    said = keys("group")
    assert said["No group"] == 36
    assert said["patient 00"] == 6
    assert list(said)[-1] == "3 others"
    assert sum(said.values()) == N
    with pytest.raises(InvalidInputError, match="cannot be coloured by “mood”"):
        keys("mood")


def test_a_new_index_takes_the_place_of_the_old_one_as_a_whole(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, project = world.app.store, world.project_id
    rows, _ = unit_rows(N)
    index_of(store, project, rows)
    folder = looks_files.folder_of(store, project)
    _, old = looks.vectors(store, project_id=project)
    before = similar(world, ids_of(world)[0])

    save, written = np.save, []

    def fails(handle: Any, array: Any) -> None:
        written.append(handle)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        save(handle, array)

    monkeypatch.setattr(looks_files.np, "save", fails)
    other, _ = unit_rows(N, seed=9)
    with pytest.raises(OSError, match="No space left"):
        index_of(store, project, other)
    monkeypatch.undo()
    assert similar(world, ids_of(world)[0]) == before
    assert len(list(folder.iterdir())) == 1

    (folder / ".half-of-a-killed-worker").mkdir()
    index_of(store, project, other)
    assert len(list(folder.iterdir())) == 1  # neither the old one nor the half one is left
    np.testing.assert_array_equal(old, rows)  # who had it open still reads it
    np.testing.assert_array_equal(looks.vectors(store, project_id=project)[1], other)


def test_an_index_of_an_older_form_counts_as_unreadable(world: World) -> None:
    rows, _ = unit_rows(N)
    index_of(world.app.store, world.project_id, rows)
    assert not looks.status(world.app.store, project_id=world.project_id).is_unreadable
    (version,) = looks_files.folder_of(world.app.store, world.project_id).iterdir()
    (version / "ratio.npy").rename(version.parent / ".ratio.npy")
    looks_files._kept.clear()  # as after a restart
    now = looks.status(world.app.store, project_id=world.project_id)
    assert (now.version, now.is_stale, now.is_unreadable) == (None, True, True)
    with pytest.raises(NotFoundError, match="were not sorted by looks yet"):
        looks.clusters(world.app.store, project_id=world.project_id)
    assert looks.follow_features(world.app.store, project_id=world.project_id) is not None


def test_a_damaged_index_is_like_none(world: World) -> None:
    rows, _ = unit_rows(N)
    index_of(world.app.store, world.project_id, rows)
    (version,) = looks_files.folder_of(world.app.store, world.project_id).iterdir()
    (version / "rows.npy").write_bytes(b"not an array")
    assert looks.status(world.app.store, project_id=world.project_id).version is None
    index_of(world.app.store, world.project_id, rows)
    assert looks.status(world.app.store, project_id=world.project_id).version is not None


def test_the_status_counts_what_came_since_or_looks_otherwise(world: World) -> None:
    store, project = world.app.store, world.project_id
    assert looks.status(store, project_id=project).is_stale
    broken = ids_of(world)[5]
    rows, _ = unit_rows(N)
    index_of(store, project, rows, unread=(broken,))

    def missing() -> int:
        return looks.status(store, project_id=project).n_missing

    now = looks.status(store, project_id=project)
    assert (now.n, now.n_missing, now.n_unread, now.is_stale) == (N - 1, 0, 1, False)
    new_image(world, ids_of(world)[0])
    assert missing() == 1
    gone = exclusion.exclude(store, project_id=project, image_ids=ids_of(world)[:3], who="ada")
    assert missing() == 1  # what is out of use is no reason
    exclusion.restore(store, project_id=project, image_ids=gone.image_ids, who="ada")
    with store.writing() as session:
        session.execute(update(Image).where(Image.id.in_(ids_of(world)[20:24])).values(seen="max"))
        session.add(Job(project_id=project, kind="reread", state="done"))
    assert missing() == 5


def test_images_whose_features_came_after_the_index_are_not_taken_for_unreadable(
    world: World,
) -> None:
    store, project = world.app.store, world.project_id
    rows, _ = unit_rows(N)
    index_of(store, project, rows, unread=tuple(ids_of(world)[:4]))
    before = looks.status(store, project_id=project)
    assert (before.n_missing, before.n_unread) == (0, 4)
    job = jobs.submit_job(store, kind="features", project_id=project)
    now = looks.status(store, project_id=project)
    assert (now.n_missing, now.n_unread) == (4, 0)  # it may compute them
    with store.writing() as session:
        row = session.get_one(Job, job)
        row.state, row.finished_at = "done", datetime.now(UTC)
    assert looks.follow_features(store, project_id=project) is not None
    index_of(store, project, rows, unread=tuple(ids_of(world)[:2]))  # two were unreadable indeed
    after = looks.status(store, project_id=project)
    assert (after.n_missing, after.n_unread) == (0, 2)


def test_a_new_index_follows_features_only_where_that_is_worth_it(world: World) -> None:
    store, project = world.app.store, world.project_id

    def follows() -> bool:
        found = looks.follow_features(store, project_id=project)
        if found is not None:
            jobs.cancel_job(store, job_id=found)
        return found is not None

    assert follows()  # there is none yet
    rows, _ = unit_rows(N)
    index_of(store, project, rows)
    assert not follows()  # nothing new
    new_image(world, ids_of(world)[0])
    new_image(world, ids_of(world)[1])
    assert not follows()  # 2 of 60 within ten minutes
    new_image(world, ids_of(world)[2])
    assert follows()  # 5 %
    waiting = jobs.submit_job(store, kind="features", project_id=project)
    assert not follows()  # more is on its way
    jobs.cancel_job(store, job_id=waiting)
    asked = looks.queue_looks(store, project_id=project)
    assert looks.queue_looks(store, project_id=project) == asked
    assert looks.follow_features(store, project_id=project) is None  # one is enough


def test_after_ten_minutes_one_new_image_is_reason_enough(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, _ = unit_rows(N)
    index_of(world.app.store, world.project_id, rows)
    new_image(world, ids_of(world)[0])

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz or UTC) + timedelta(minutes=11)

    monkeypatch.setattr(looks_status, "datetime", Later)
    assert looks.follow_features(world.app.store, project_id=world.project_id) is not None


def test_an_image_is_found_by_bytes_name_end_of_a_name_or_number(world: World) -> None:
    store, project = world.app.store, world.project_id
    some = ids_of(world)[3]
    item = looks.list_items(store, image_ids=[some])[0]
    short = item.name.split("/")[-1]

    def find(name: str, sha256: str | None = None) -> int | None:
        return looks.find_image(store, project_id=project, name=name, sha256=sha256)

    assert find(item.name) == find(short) == find(str(some)) == some
    assert find("elsewhere.png", item.sha256) == some
    with store.writing() as session:
        session.get_one(Image, ids_of(world)[9]).file_name = f"other/{short}"
    assert find(short) is None  # two end so
    assert find("nobody.png") is None
    assert find("%") is None
    assert find("") is None


@pytest.fixture
def made(app: App) -> World:
    """Return a project whose features were made by their job."""
    world = make_world(app, {"liver": 14, "colon": 14}, unlabelled=12, side=64)
    new_image(world, world.image_ids[0][0])
    job = training.queue_features(app.store, project_id=world.project_id)
    assert job is not None
    run_here(app, job)
    return world


def test_the_worker_makes_an_index_behind_the_features(made: World, tmp_path: Path) -> None:
    store, project = made.app.store, made.project_id
    (job,) = jobs.list_jobs(store, kinds=["looks"])
    assert job.state == "queued"
    run_here(made.app, job.id)
    done = jobs.get_job(store, job_id=job.id)
    assert (done.state, done.error) == ("done", None)
    assert done.result["images"] == 41
    assert done.result["map"] == "umap"
    now = looks.status(store, project_id=project)
    assert (now.n, now.n_missing, now.n_unread, now.job_id) == (41, 0, 0, None)
    first = made.image_ids[0][0]
    found = similar(made, first, n=13)
    assert found[0][1] == pytest.approx(1.0, abs=1e-4)  # the same bytes under another name
    livers = set(made.image_ids[0])
    assert sum(i in livers for i, _ in found[1:]) >= 10  # stripes and colour tell the classes
    cns = Commands(made.app.store.root)
    file = tmp_path / "somewhere.png"
    shutil.copy(store.root / path_of(made, first), file)
    said = cns.json("similar", file, "--project", "world", "--n", 5)
    assert said["like"] == [first]
    assert [(m["image_id"], m["similarity"]) for m in said["similar"]] == found[:5]
    wrong = cns.run("similar", "nobody.png", "--project", "world")
    assert wrong.returncode == 1
    assert "“nobody.png” is no image of this project." in wrong.stderr


def path_of(world: World, image_id: int) -> str:
    """Return where the bytes of an image lie."""
    with world.app.store.reading() as session:
        return session.get_one(Image, image_id).stored_path


def test_an_index_without_features_says_so(world: World) -> None:
    job = looks.queue_looks(world.app.store, project_id=world.project_id)
    run_here(world.app, job)
    failed = jobs.get_job(world.app.store, job_id=job)
    assert failed.state == "failed"
    assert "There are no features of this project's images yet." in str(failed.error)


def test_a_training_run_that_waits_goes_first(made: World) -> None:
    store, project = made.app.store, made.project_id
    job = looks.queue_looks(store, project_id=project)
    train = jobs.submit_job(store, kind="train", project_id=project)
    run_here(made.app, job)
    ended = jobs.get_job(store, job_id=job)
    rest = ended.result["goes_on_as"]
    assert rest > train
    assert jobs.get_job(store, job_id=rest).state == "queued"


@pytest.mark.slow
def test_the_command_makes_the_index_with_a_worker_of_its_own(made: World) -> None:
    import_labels(
        made.app.store, project_id=made.project_id, annotator="ann",
        rows=[(i, made.class_ids[0]) for i in made.image_ids[2][:2]],
    )  # fmt: skip
    before = looks.status(made.app.store, project_id=made.project_id).version
    said = Commands(made.app.store.root).json("looks", "--project", "world")
    assert said["images"] == 41
    assert looks.status(made.app.store, project_id=made.project_id).version != before
