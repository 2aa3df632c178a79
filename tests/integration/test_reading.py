"""Another way to read a project's images: what it touches, the job, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture
from sqlalchemy import select, update

from cnsapp.bootstrap import App
from cnsapp.errors import InvalidInputError
from cnsapp.imaging import isolated
from cnsapp.imaging.rule import Channel, ReadingRule
from cnsapp.imaging.store import ImageFolder
from cnsapp.jobs.running import run_here
from cnsapp.services import jobs, projects, reading
from cnsapp.services.importing import import_folder
from cnsapp.services.models import get_model
from cnsapp.services.reading_levels import find_levels
from cnsapp.services.reading_preview import examples, preview
from cnsapp.tasks import reread
from db.models import Image, Job, Model
from tests.integration import deep

N_DEEP, N_STACKS, N_CHANNELS, N_CLEAR, N_PLAIN = 5, 3, 2, 2, 4


@pytest.fixture
def project(app: App, tmp_path: Path) -> int:
    """Return a project with files of every kind that a rule has a say in, and plain ones."""
    source = tmp_path / "source"
    for k in range(N_DEEP):
        deep.deep(source / f"deep{k}.tif", 100 * k)
    for k in range(N_STACKS):
        deep.stack(source / f"stack{k}.tif", (10 + k, 200, 50))
    for k in range(N_CHANNELS):
        deep.channels(source / f"channels{k}.ome.tif", (1000 + k, 2000), ("DAPI", "GFP"))
    for k in range(N_CLEAR):
        deep.clear(source / f"clear{k}.png", k)
    for k in range(N_PLAIN):
        deep.plain(source / f"plain{k}.png", k)
    project_id = projects.create_project(app.store, name="p").id
    report = import_folder(app, project_id=project_id, path=source)
    assert report.skipped == []
    return project_id


def rule_of(app: App, project: int) -> ReadingRule:
    return reading.get_reading(app.store, project_id=project).rule


def rows(app: App, project: int) -> dict[str, Image]:
    """Return the images by name."""
    with app.store.reading() as session:
        found = session.scalars(select(Image).where(Image.project_id == project)).all()
        session.expunge_all()
        return {row.file_name: row for row in found}


def thumb(app: App, row: Image) -> Path:
    return ImageFolder(app.store.root).thumb_path(row.sha256, row.seen)


def value_at(app: App, row: Image, x: int, y: int) -> tuple[int, ...]:
    """Return the colour of the thumbnail at a point, as another reader sees it."""
    return tuple(int(v) for v in np.asarray(Picture.open(thumb(app, row)).convert("RGB"))[y, x])


def apply_and_run(app: App, project: int, rule: ReadingRule) -> jobs.JobView:
    done = reading.apply_rule(app, project_id=project, rule=rule)
    assert done.job_id is not None
    run_here(app, done.job_id)
    return jobs.get_job(app.store, job_id=done.job_id)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the hashes of the files that are decoded, in their order."""
    seen: list[str] = []
    real = isolated.look_at

    def look_at(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["sha256"])
        return real(*args, **kwargs)

    monkeypatch.setattr(isolated, "look_at", look_at)
    return seen


def test_reading_says_what_the_projects_files_have(app: App, project: int) -> None:
    now = reading.get_reading(app.store, project_id=project)
    assert now.n_images == N_DEEP + N_STACKS + N_CHANNELS + N_CLEAR + N_PLAIN
    assert now.n_deep == N_DEEP + N_CHANNELS
    assert (now.n_paged, now.most_pages) == (N_STACKS, 3)
    assert (now.n_channelled, now.most_channels) == (N_CHANNELS, 2)
    assert (now.n_transparent, now.n_unknown, now.samples) == (N_CLEAR, 0, ["uint16"])
    assert not now.is_plain


def test_a_project_of_plain_pictures_has_nothing_to_set(app: App, tmp_path: Path) -> None:
    deep.plain(tmp_path / "source" / "a.png", 1)
    project = projects.create_project(app.store, name="plain").id
    import_folder(app, project_id=project, path=tmp_path / "source")
    assert reading.get_reading(app.store, project_id=project).is_plain
    assert examples(app, project_id=project) == []


def test_the_kinds_of_files_are_counted_again_when_images_come(
    app: App, project: int, tmp_path: Path
) -> None:
    before = reading.get_reading(app.store, project_id=project).n_images
    deep.plain(tmp_path / "more" / "new.png", 99)
    import_folder(app, project_id=project, path=tmp_path / "more")
    assert reading.get_reading(app.store, project_id=project).n_images == before + 1


def test_exactly_the_touched_images_change_and_to_the_right_values(
    app: App, project: int, looked_at: list[str]
) -> None:
    before = rows(app, project)
    pictures = {name: thumb(app, row) for name, row in before.items()}
    rule = replace(rule_of(app, project), page="max").with_window("uint16", 0, 4000)
    job = apply_and_run(app, project, rule)
    assert job.state == "done"
    assert job.result == {"read": N_DEEP + N_STACKS + N_CHANNELS, "n_failed": 0, "failed": []}
    after = rows(app, project)
    touched = {name for name in after if not name.startswith(("plain", "clear"))}
    assert {name for name in after if after[name].seen != before[name].seen} == touched
    assert sorted(looked_at) == sorted(after[name].sha256 for name in touched)
    # 400 of 4,000 is 25.5 of 255; 4,000 is white; the brightest page of a stack is 200
    assert value_at(app, after["deep4.tif"], 5, 5) == pytest.approx((26,) * 3, abs=2)
    assert value_at(app, after["deep4.tif"], 35, 5) == pytest.approx((255,) * 3, abs=2)
    assert value_at(app, after["stack1.tif"], 5, 5) == pytest.approx((200,) * 3, abs=2)
    for name, row in after.items():
        assert row.seen == rule.seen(row.facts)
        assert pictures[name].exists() is (name not in touched), "old looks must not pile up"


def test_channels_are_shown_in_their_colours(app: App, project: int) -> None:
    channels = (Channel(0, "#0000FF", 0, 2000), Channel(1, "#FF0000", 0, 2000))
    apply_and_run(app, project, replace(rule_of(app, project), channels=channels))
    row = rows(app, project)["channels0.ome.tif"]
    assert value_at(app, row, 30, 5) == pytest.approx((0, 0, 128), abs=12)  # the upper stripe
    assert value_at(app, row, 30, 35) == pytest.approx((255, 0, 0), abs=12)


def test_what_lies_behind_transparency_changes_transparent_files_alone(
    app: App, project: int
) -> None:
    job = apply_and_run(app, project, replace(rule_of(app, project), background="#00FF00"))
    assert job.result["read"] == N_CLEAR
    assert value_at(app, rows(app, project)["clear0.png"], 5, 20) == pytest.approx(
        (0, 255, 0), abs=6
    )


def test_a_change_says_first_what_it_does(app: App, project: int) -> None:
    now = rule_of(app, project)
    models = [add_model(app, project, now), add_model(app, project, replace(now, page="max"))]
    change = reading.what_changes(app, project_id=project, rule=replace(now, page="max"))
    assert change.n_images == N_STACKS
    assert change.differences == ["stacks as their maximum projection instead of their first page"]
    assert [m.id for m in change.models] == [models[0]]
    assert change.seconds == pytest.approx(N_STACKS * 0.02)
    assert rule_of(app, project) == now, "looking changes nothing"
    assert reading.what_changes(app, project_id=project, rule=now).is_none


def test_a_rule_that_cannot_be_used_is_refused_and_changes_nothing(app: App, project: int) -> None:
    now = rule_of(app, project)
    with pytest.raises(InvalidInputError, match="no page “last”"):
        reading.apply_rule(app, project_id=project, rule=replace(now, page="last"))
    with pytest.raises(InvalidInputError, match="has no extent"):
        reading.apply_rule(app, project_id=project, rule=now.with_window("uint16", 5, 5))
    assert rule_of(app, project) == now
    assert jobs.list_jobs(app.store, kinds=["reread"]) == []


def test_a_rule_that_touches_nothing_is_kept_without_a_job(app: App, project: int) -> None:
    rule = replace(rule_of(app, project), windows_from="percentile")
    assert reading.apply_rule(app, project_id=project, rule=rule) == reading.Applied(None, 0)
    assert rule_of(app, project).windows_from == "percentile"


def test_a_window_that_an_import_fixed_meanwhile_stays(app: App, project: int) -> None:
    seen_before = replace(rule_of(app, project), windows=(), page="max")
    reading.apply_rule(app, project_id=project, rule=seen_before)
    assert rule_of(app, project).window("uint16") == (0, 4095)


def test_two_changes_wait_in_one_job(app: App, project: int) -> None:
    now = rule_of(app, project)
    first = reading.apply_rule(app, project_id=project, rule=replace(now, page="max"))
    second = reading.apply_rule(app, project_id=project, rule=replace(now, page="2"))
    assert first.job_id == second.job_id


def test_a_job_that_was_killed_goes_on_where_it_stopped(
    app: App, project: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reread, "CHUNK", 2)
    real, calls = isolated.look_at, list[str]()

    def dies_at_the_fifth(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs["sha256"])
        if len(calls) == 5:
            raise RuntimeError("as a kill would")
        return real(*args, **kwargs)

    monkeypatch.setattr(isolated, "look_at", dies_at_the_fifth)
    rule = rule_of(app, project).with_window("uint16", 0, 1000)
    job = apply_and_run(app, project, rule)
    assert job.state == "failed"
    done = {r.sha256 for r in rows(app, project).values() if r.seen == rule.seen(r.facts)}
    left = reading.what_changes(app, project_id=project, rule=rule).n_images
    assert 0 < left < N_DEEP + N_CHANNELS
    calls.clear()
    monkeypatch.setattr(isolated, "look_at", lambda *a, **k: (calls.append(k["sha256"]),
                                                              real(*a, **k))[1])  # fmt: skip
    assert apply_and_run(app, project, rule).result["read"] == left
    assert len(calls) == left
    assert not done & set(calls), "what was read is not read again"
    assert all(r.seen == rule.seen(r.facts) for r in rows(app, project).values())


def test_a_cancelled_job_keeps_what_it_did(
    app: App, project: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reread, "CHUNK", 2)
    monkeypatch.setattr("cnsapp.jobs.context.LOOK_SECONDS", 0.0)
    real, n = isolated.look_at, 0

    def cancels(*args: Any, **kwargs: Any) -> Any:
        nonlocal n
        n += 1
        if n == 3:
            with app.store.writing() as session:
                session.execute(update(Job).values(cancel_requested=True))
        return real(*args, **kwargs)

    monkeypatch.setattr(isolated, "look_at", cancels)
    rule = rule_of(app, project).with_window("uint16", 0, 1000)
    assert apply_and_run(app, project, rule).state == "cancelled"
    left = reading.what_changes(app, project_id=project, rule=rule).n_images
    assert 0 < left <= N_DEEP + N_CHANNELS - 2


def test_the_newest_rule_counts_when_it_changes_meanwhile(
    app: App, project: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reread, "CHUNK", 2)
    newest = rule_of(app, project).with_window("uint16", 0, 500)
    real, n = isolated.look_at, 0

    def changes(*args: Any, **kwargs: Any) -> Any:
        nonlocal n
        n += 1
        if n == 3:
            reading.apply_rule(app, project_id=project, rule=newest)
        return real(*args, **kwargs)

    monkeypatch.setattr(isolated, "look_at", changes)
    job = apply_and_run(app, project, rule_of(app, project).with_window("uint16", 0, 1000))
    assert job.state == "done"
    assert all(r.seen == newest.seen(r.facts) for r in rows(app, project).values())
    assert rule_of(app, project) == newest


def test_images_that_the_rule_cannot_read_keep_their_picture_and_are_listed(
    app: App, project: int
) -> None:
    before = rows(app, project)
    job = apply_and_run(app, project, replace(rule_of(app, project), page="5"))
    assert job.state == "done"
    assert (job.result["read"], job.result["n_failed"]) == (0, N_STACKS)
    assert [f["file"] for f in job.result["failed"]] == ["stack0.tif", "stack1.tif", "stack2.tif"]
    assert "3 pages" in job.result["failed"][0]["reason"]
    after = rows(app, project)
    for name in ("stack0.tif", "stack2.tif"):
        assert (after[name].seen, after[name].facts) == (before[name].seen, before[name].facts)
        assert value_at(app, after[name], 5, 5) == pytest.approx((10 + int(name[5]),) * 3, abs=2)


def test_a_missing_file_is_listed_and_does_not_stop_the_rest(app: App, project: int) -> None:
    app.store.path(rows(app, project)["deep0.tif"].stored_path).unlink()
    job = apply_and_run(app, project, rule_of(app, project).with_window("uint16", 0, 1000))
    assert job.result["read"] == N_DEEP + N_CHANNELS - 1
    assert job.result["failed"][0]["reason"] == "The file is not there any more."


def test_the_same_bytes_under_two_names_are_read_once(
    app: App, tmp_path: Path, looked_at: list[str]
) -> None:
    first = deep.deep(tmp_path / "source" / "a.tif", 10)
    (tmp_path / "source" / "b.tif").write_bytes(first.read_bytes())
    project = projects.create_project(app.store, name="twice").id
    import_folder(app, project_id=project, path=tmp_path / "source")
    looked_at.clear()
    job = apply_and_run(app, project, rule_of(app, project).with_window("uint16", 0, 100))
    assert (job.result["read"], len(looked_at)) == (2, 1)
    assert len({row.seen for row in rows(app, project).values()}) == 1


def test_another_projects_picture_of_the_same_bytes_stays(app: App, tmp_path: Path) -> None:
    deep.deep(tmp_path / "source" / "a.tif", 10)
    first, second = (projects.create_project(app.store, name=name).id for name in "ab")
    for project in (first, second):
        import_folder(app, project_id=project, path=tmp_path / "source")
    apply_and_run(app, first, rule_of(app, first).with_window("uint16", 0, 100))
    assert thumb(app, rows(app, second)["a.tif"]).is_file()


def test_images_of_an_older_version_are_read_again_when_they_are_deep(
    app: App, project: int
) -> None:
    """What an older version knew: no samples, channels and transparency, pictures without sign."""
    new = ("samples", "channels", "alpha", "um_per_px", "seen")
    for row in rows(app, project).values():
        old = {name: value for name, value in row.facts.items() if name not in new}
        with app.store.writing() as session:
            session.execute(update(Image).where(Image.id == row.id).values(facts=old, seen=""))
    now = reading.get_reading(app.store, project_id=project)
    assert now.n_unknown == N_DEEP + N_CHANNELS + N_STACKS
    change = reading.what_changes(app, project_id=project, rule=now.rule)
    assert (change.n_images, change.n_unsure) == (now.n_unknown, now.n_unknown)
    job = apply_and_run(app, project, now.rule)
    assert job.result["read"] == now.n_unknown
    after = rows(app, project)
    assert after["deep0.tif"].seen == now.rule.seen(after["deep0.tif"].facts) != ""
    assert after["channels0.ome.tif"].facts["channels"] == 2
    assert "samples" not in after["plain0.png"].facts, "plain 8-bit files are left alone"
    again = reading.get_reading(app.store, project_id=project)
    assert (again.n_unknown, again.n_channelled) == (0, N_CHANNELS)


def test_features_of_untouched_images_are_not_computed_again(app: App, project: int) -> None:
    def compute() -> int:
        job_id = jobs.submit_job(app.store, kind="features", project_id=project)
        run_here(app, job_id)
        return int(jobs.get_job(app.store, job_id=job_id).result["computed"])

    total = N_DEEP + N_STACKS + N_CHANNELS + N_CLEAR + N_PLAIN
    assert compute() == total
    apply_and_run(app, project, replace(rule_of(app, project), page="max"))
    waiting = jobs.list_jobs(app.store, project_id=project, kinds=["features"], active_only=True)
    assert len(waiting) == 1, "the job queues the features of what it read"
    run_here(app, waiting[0].id)
    assert jobs.get_job(app.store, job_id=waiting[0].id).result["computed"] == N_STACKS
    assert compute() == 0


def test_a_preview_shows_the_new_look_and_stores_nothing(app: App, project: int) -> None:
    before = {p.name for p in app.store.path("thumbs").rglob("*.jpg")}
    rule = replace(rule_of(app, project), page="max").with_window("uint16", 0, 4000)
    looks = preview(app, project_id=project, rule=rule, patience=60)
    assert len(looks) == 6
    kinds = {look.kind for look in looks}
    assert kinds == {"16-bit", "16-bit, 2 channels", "3 pages"}
    for look in looks:
        assert look.picture is not None and not look.reason
    stacked = next(look for look in looks if look.kind == "3 pages")
    assert jpeg_value(stacked.picture) == pytest.approx(200, abs=2)
    assert {p.name for p in app.store.path("thumbs").rglob("*.jpg")} == before
    assert jobs.list_jobs(app.store) == []


def test_a_preview_says_why_a_file_cannot_be_read_that_way(app: App, project: int) -> None:
    rule = replace(rule_of(app, project), page="9")
    looks = preview(app, project_id=project, rule=rule, patience=60)
    assert len(looks) == N_STACKS
    assert all("3 pages" in look.reason and not look.is_pending for look in looks)


def test_a_preview_does_not_wait_for_slow_files(
    app: App, project: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    go = threading.Event()
    real = isolated.call

    def slow(*args: Any, **kwargs: Any) -> Any:
        assert go.wait(60)
        return real(*args, **kwargs)

    monkeypatch.setattr(isolated, "call", slow)
    rule = rule_of(app, project).with_window("uint16", 3, 333)
    looks = preview(app, project_id=project, rule=rule, patience=0.05)
    assert looks and all(look.is_pending for look in looks)
    go.set()
    looks = preview(app, project_id=project, rule=rule, patience=60)
    assert all(look.picture for look in looks)


def test_levels_are_those_of_the_files(app: App, project: int) -> None:
    found = find_levels(app, project_id=project, page="first").result(60)
    levels = found.levels["uint16"]
    assert (levels.low, levels.high, levels.n_files) == (0, 4000, N_DEEP + N_CHANNELS)
    assert levels.by_range == (0, 4095)
    assert levels.by_percentile == (0, 4000)
    assert [(c.name, c.low, c.high) for c in found.channels] == [("DAPI", 0, 1001),
                                                                 ("GFP", 0, 2000)]  # fmt: skip


def add_model(app: App, project: int, rule: ReadingRule) -> int:
    with app.store.writing() as session:
        model = Model(
            project_id=project,
            name="quick",
            preset="quick",
            backbone="b",
            path="models/none",
            sha256="0",
            settings={"reading": rule.as_json()},
        )
        session.add(model)
        session.flush()
        return model.id


STALE: list[tuple[Callable[[ReadingRule], ReadingRule], str]] = [
    (lambda rule: rule.with_window("uint16", 0, 255), "16-bit samples from 0 to 4,095 instead"),
    (lambda rule: replace(rule, page="max"), "stacks as their first page instead"),
    (lambda rule: replace(rule, background="#000000"), "white behind transparency instead"),
    (lambda rule: replace(rule, channels=(Channel(1, "#FF0000"),)), "the first channel in gray"),
]


@pytest.mark.parametrize(("then", "words"), STALE)
def test_a_model_of_another_look_says_what_differs(
    app: App, project: int, then: Callable[[ReadingRule], ReadingRule], words: str
) -> None:
    model = add_model(app, project, then(rule_of(app, project)))
    view = get_model(app.store, model_id=model)
    assert words in "; ".join(reading.read_otherwise(app.store, model=view))


def test_a_model_says_nothing_of_differences_that_no_image_shows(app: App, project: int) -> None:
    then = replace(rule_of(app, project), windows_from="percentile").with_window("float", 0, 9)
    view = get_model(app.store, model_id=add_model(app, project, then))
    # a stack may hold floats on a later page, but only its first is read
    assert reading.read_otherwise(app.store, model=view) == []


def jpeg_value(data: bytes | None) -> float:
    import io

    assert data is not None
    return float(np.asarray(Picture.open(io.BytesIO(data)).convert("L")).mean())
