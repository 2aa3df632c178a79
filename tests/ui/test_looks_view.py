"""The view by looks as Streamlit draws it: empty, typical, behind the project, and blind."""

from __future__ import annotations

from typing import Any

from cnsapp.bootstrap import App
from cnsapp.jobs.running import run_here
from cnsapp.services import images, jobs, label_settings, looks, looks_files, projects
from cnsapp.ui.frame import Here
from cnsapp.ui.looks_bulk import Place
from cnsapp.ui.looks_clusters import cluster_data
from cnsapp.ui.looks_panel import inside
from cnsapp.ui.looks_similar import asked_for
from tests.integration.worlds import World
from tests.looks import index_of, unit_rows
from tests.ui.conftest import Screen

N = 28  # images of the world


def open_view(screen: Screen, world: World, **more: object) -> Screen:
    """Open the view as Maria."""
    return screen.open("label", project=world.project_id, who="maria", view="By looks", **more)


def make_index(app: App, world: World, **options: object) -> list[int]:
    """Write an index with two clusters."""
    rows, _ = unit_rows(N, k=2)
    return index_of(
        app.store,
        world.project_id,
        rows,
        clusters=[i % 2 for i in range(N)],
        ratio=[0.9 - i / 40 for i in range(N)],
        **options,
    )  # type: ignore[arg-type]


def test_without_an_index_one_button_makes_it(screen: Screen, world: World, app: App) -> None:
    open_view(screen, world)
    assert "Here images are sorted by what they look like" in screen.words
    assert screen.primary == [f"Sort {N} images by looks"]
    screen.press("looks_make")
    (job,) = jobs.list_jobs(app.store, kinds=["looks"])
    assert (job.state, job.requested_by) == ("queued", "maria")
    assert not screen.errors
    assert not screen.has("looks_make")


def test_the_map_says_of_how_many_images_it_is(screen: Screen, world: World, app: App) -> None:
    last = max(i for part in world.image_ids for i in part)
    make_index(app, world, leave_out=(last,))
    open_view(screen, world)
    assert f"{N - 1} images, sorted just now · 1 image is not in it yet" in screen.words
    assert "Drag around a heap of points" in screen.words
    assert screen.primary == []
    assert not screen.errors
    screen.press("looks_again")
    assert looks.status(app.store, project_id=world.project_id).job_id is not None
    assert not screen.has("looks_again")  # one is enough


def test_a_job_that_failed_says_why_and_the_old_index_stays(
    screen: Screen, world: World, app: App
) -> None:
    asked = looks.queue_looks(app.store, project_id=world.project_id)
    run_here(app, asked)  # there are no features
    open_view(screen, world)
    assert ["There are no features of this project's images yet." in e for e in screen.errors] == [
        True
    ]
    assert screen.has("looks_make")
    make_index(app, world)
    assert not open_view(Screen(), world).errors  # it was made since
    run_here(app, looks.queue_looks(app.store, project_id=world.project_id))
    again = open_view(Screen(), world)
    assert len(again.errors) == 1
    assert f"{N} images, sorted just now" in again.words


def test_a_cluster_of_the_list_opens_with_its_images(
    screen: Screen, world: World, app: App
) -> None:
    make_index(app, world)
    open_view(screen, world, looks_by="Clusters")
    assert "**4 clear images** in 2 clusters without a label" in screen.words
    screen.test.session_state["looks_cluster"] = (
        looks.status(app.store, project_id=world.project_id).version, 1,
    )  # fmt: skip
    screen.test.run()
    assert "14 images** in cluster 2, the most typical first" in screen.words
    assert not screen.errors
    make_index(app, world)  # sorted anew meanwhile: the list again, no other cluster
    screen.test.run()
    assert "in 2 clusters without a label" in screen.words


def test_similar_images_are_those_of_the_address(screen: Screen, world: World, app: App) -> None:
    ids = make_index(app, world)
    open_view(screen, world, like=f"{ids[3]},{ids[5]}")
    assert (
        f"{N - 2} images** similar to the middle of these 2, the most similar first" in screen.words
    )
    assert not screen.errors
    screen.test.query_params["like"] = "999999,x"
    screen.test.run()
    assert "start from one of these" in screen.words
    assert not screen.errors


def test_who_labels_blind_sees_neither_opinions_nor_labels_of_others(
    screen: Screen, world: World, app: App
) -> None:
    make_index(app, world)
    label_settings.change_settings(app.store, project_id=world.project_id, blind=True)
    open_view(screen, world)
    (color,) = (box for box in screen.test.selectbox if box.key == "looks_color")
    assert color.options == ["Colour: group"]
    screen.test.query_params["looks_by"] = "Clusters"
    screen.test.session_state["looks_by"] = "Clusters"
    screen.test.run()
    assert not screen.errors


def drawn(app: App, world: World, *, blind: bool) -> list[dict[str, Any]]:
    """Return the rows of clusters as the browser gets them."""
    project = projects.get_project(app.store, project=world.project_id)
    found = looks.clusters(app.store, project_id=world.project_id)
    items = looks.list_items(app.store, image_ids=[i for one in found for i in one.previews])
    place = Place(
        Here(app, project, "maria"), project,
        projects.list_classes(app.store, project_id=world.project_id),
        images.counts(app.store, project_id=world.project_id), 0, blind,
    )  # fmt: skip
    now = looks.status(app.store, project_id=world.project_id)
    rows: list[dict[str, Any]] = cluster_data(
        place, now, found, {item.id: item for item in items}, also=False
    )["rows"]
    return rows


def test_rows_name_the_labels_of_a_cluster_unless_one_labels_blind(world: World, app: App) -> None:
    make_index(app, world)
    seen = drawn(app, world, blind=False)
    assert [row["said"] for row in seen] == ["12 labelled", "12 labelled"]
    assert {named["name"] for row in seen for named in row["labelled"]} == {"liver", "colon"}
    assert all(len(row["images"]) == min(6, row["free"] or row["clear"]) for row in seen)
    hidden = drawn(app, world, blind=True)
    assert [row["said"] for row in hidden] == ["12 labelled", "12 labelled"]
    assert [row["labelled"] for row in hidden] == [[], []]


def test_an_index_of_an_older_form_is_made_again_unasked(
    screen: Screen, world: World, app: App
) -> None:
    make_index(app, world)
    (version,) = looks_files.folder_of(app.store, world.project_id).iterdir()
    (version / "ratio.npy").unlink()
    looks_files._kept.clear()
    open_view(screen, world)
    assert "damaged or of an older form; it is made again" in screen.words
    assert not screen.errors
    (job,) = jobs.list_jobs(app.store, kinds=["looks"])
    assert job.state == "queued"
    run_here(app, job.id)  # fails: there are no features
    again = open_view(Screen(), world)
    assert len(again.errors) == 1
    assert again.has("looks_make")
    assert len(jobs.list_jobs(app.store, kinds=["looks"])) == 1  # not again and again


def test_an_address_names_images_by_numbers_alone() -> None:
    assert asked_for("12,15") == [12, 15]
    assert asked_for("12,,x,-3, 4,²,99999999999") == [12]
    assert asked_for(None) == []
    assert len(asked_for(",".join(["7"] * 99))) == 50


def test_an_outline_that_is_none_selects_nothing(world: World, app: App) -> None:
    make_index(app, world)
    points = looks.map_points(app.store, project_id=world.project_id)
    whole = [[-1, -1], [70_000, -1], [70_000, 70_000], [-1, 70_000]]
    good = {"version": points.version, "outline": whole}
    assert len(inside(points, good) or []) == N
    for bad in (
        None, {}, "x", {**good, "version": "older"}, {**good, "outline": None},
        {**good, "outline": [[1, 2]]}, {**good, "outline": [[1, 2, 3]] * 4},
        {**good, "outline": "abc"}, {**good, "outline": [[0, 0]] * 2000},
        {**good, "outline": [[float("nan"), 0], [1, 1], [2, 0]]},
    ):  # fmt: skip
        assert not inside(points, bad)
