"""Quality of a project's images: measured, flagged, paired, excluded, grouped, taken back."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture
from sqlalchemy import select

from cnsapp.bootstrap import App
from cnsapp.cli import main
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.imaging.reader import read_image
from cnsapp.services import exclusion, exports, health, images, importing, projects, quality
from cnsapp.services import quality_scan as scan
from cnsapp.services.images import ImageFilter
from cnsapp.services.training import readiness
from cnsapp.tasks.features import list_sources
from cnsapp.tasks.quality import Measuring
from db.models import Image, ImageEvent, ImageFlag, ImageQuality, NearPair
from tests.unit.test_imaging_quality import Pixels, blurred, recoloured, resaved, tissue


class FakeJob:
    """A job that nobody cancels."""

    def check_cancelled(self) -> None:
        """Go on."""

    def progress(self, *_: object, **__: object) -> None:
        """Nobody looks."""


def save(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(np.ascontiguousarray(pixels)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return 24 good tiles of two classes and four patients, and some of each kind of bad ones."""
    root = tmp_path / "slides"
    tiles = [tissue(seed, 128) for seed in range(24)]
    for k, tile in enumerate(tiles):
        save(root / ("liver" if k % 2 else "colon") / f"P{k % 4}_{k:02}.png", tile)
    save(root / "liver" / "P1_copy.png", tiles[1])  # the same bytes as liver/P1_01
    rng = np.random.default_rng(3)
    save(root / "colon" / "P3_turned.png", recoloured(np.rot90(tiles[0]), rng))  # P0's, in P3
    save(root / "liver" / "P2_resaved.png", resaved(tiles[2], 60))  # colon's, called liver
    save(root / "liver" / "P1_soft.png", blurred(tissue(90, 128), 3))
    save(root / "liver" / "P1_glass.png", np.full((128, 128, 3), 242, np.uint8))
    burnt = tissue(91, 128)
    burnt[:60] = 255
    save(root / "liver" / "P1_burnt.png", burnt)
    save(root / "liver" / "P1_green.png", tissue(92, 128)[..., [1, 0, 2]])
    save(root / "liver" / "P1_strip.png", tissue(93, 128)[:40])
    return root


@pytest.fixture
def project(app: App, folder: Path) -> int:
    """Return a project with these images, looked at."""
    made = projects.create_project(app.store, name="p", classes=["liver", "colon"])
    bring_in(app, made.id, folder)
    return made.id


def bring_in(app: App, project_id: int, folder: Path) -> None:
    importing.import_folder(
        app, project_id=project_id, path=folder, labels="folders", group_from=r"(P\d)_",
        annotator="Ada",
    )  # fmt: skip
    look(app, project_id)


def look(app: App, project_id: int) -> None:
    """Measure what was not measured yet, as the worker does beside the features."""
    rule = images.reading_rule(app.store, project_id=project_id)
    sources = list_sources(app, project_id, rule)
    Measuring(app, project_id, sources).finish(FakeJob(), rule, lambda: None)  # type: ignore[arg-type]


def names(app: App, project: int, kind: str) -> set[tuple[str, str]]:
    pairs = quality.list_pairs(app.store, project_id=project, kind=kind, limit=50)
    return {tuple(sorted((p.a.item.name, p.b.item.name))) for p in pairs}  # type: ignore[misc]


def flagged(app: App, project: int, kind: str) -> list[str]:
    return [i.name for i, _ in quality.list_flagged(app.store, project_id=project, kind=kind)]


def id_of(app: App, project: int, name: str) -> int:
    with app.store.reading() as session:
        found = select(Image.id).where(Image.project_id == project, Image.file_name == name)
        return session.scalars(found).one()


def the_pair(app: App, project: int, kind: str, name: str) -> tuple[int, int]:
    pairs = quality.list_pairs(app.store, project_id=project, kind=kind, limit=50)
    return next(p.ids for p in pairs if name in (p.a.item.name, p.b.item.name))


def sound(app: App) -> bool:
    """Return whether the kept counts agree with the rows."""
    counts = [c for c in health.examine(app) if c.name == "counts"]
    return [c.state for c in counts] == ["ok"]


def test_each_kind_of_problem_names_its_images_and_no_others(app: App, project: int) -> None:
    found = quality.overview(app.store, project_id=project)
    assert (found.images, found.measured, found.excluded) == (32, 32, 0)
    assert names(app, project, "exact") == {("liver/P1_01.png", "liver/P1_copy.png")}
    turned = ("colon/P0_00.png", "colon/P3_turned.png")
    called = ("colon/P2_02.png", "liver/P2_resaved.png")
    assert names(app, project, "near") == {turned, called}
    assert names(app, project, "conflict") == {called}
    assert names(app, project, "groups") == {turned}
    assert flagged(app, project, "blurred") == ["liver/P1_soft.png"]
    assert flagged(app, project, "empty") == ["liver/P1_glass.png"]
    assert flagged(app, project, "over") == ["liver/P1_burnt.png"]
    assert flagged(app, project, "under") == []
    assert "liver/P1_green.png" in flagged(app, project, "color")
    assert not [n for n in flagged(app, project, "color") if n.split("_")[1][:2].isdigit()]
    assert flagged(app, project, "size") == ["liver/P1_strip.png"]
    assert found.counts["near"] == 2 and found.counts["blurred"] == 1


def test_keeping_one_excludes_the_other_with_who_and_when_and_leaves_its_label(
    app: App, project: int
) -> None:
    pair = the_pair(app, project, "exact", "liver/P1_copy.png")
    before = images.counts(app.store, project_id=project)
    keep = id_of(app, project, "liver/P1_01.png")
    done = quality.keep_one(app.store, project_id=project, pair=pair, keep=keep, who="Bob")
    (gone,) = done.image_ids
    assert gone == id_of(app, project, "liver/P1_copy.png")
    after = images.counts(app.store, project_id=project)
    assert (after.images, after.labelled) == (before.images - 1, before.labelled - 1)
    detail = images.get_image(app.store, image_id=gone)
    assert (detail.status, detail.state) == ("excluded", "label")
    (note,) = exclusion.image_notes(app.store, image_id=gone)
    assert (note.kind, note.who) == ("excluded", "Bob")
    assert "liver/P1_01.png" in note.reason
    assert names(app, project, "exact") == set()
    shown = images.list_images(
        app.store, project_id=project, filter=ImageFilter(status="excluded")
    ).items
    assert [item.id for item in shown] == [gone]
    assert sound(app)

    exclusion.undo(app.store, project_id=project, action=done.action, who="Bob")
    assert images.counts(app.store, project_id=project) == before
    assert names(app, project, "exact") == {("liver/P1_01.png", "liver/P1_copy.png")}
    kinds = [n.kind for n in exclusion.image_notes(app.store, image_id=gone)]
    assert kinds == ["restored", "excluded"]
    assert sound(app)


def test_an_excluded_image_is_in_no_list_that_is_worked_on(
    app: App, project: int, tmp_path: Path
) -> None:
    ids = [id_of(app, project, n) for n in ("colon/P0_00.png", "liver/P1_01.png")]
    n_before = readiness(app.store, project_id=project).n_labelled
    exclusion.exclude(app.store, project_id=project, image_ids=ids, who="Bob", reason="bad")
    queue = images.list_images(app.store, project_id=project, limit=100).items
    assert not {item.id for item in queue} & set(ids)
    rule = images.reading_rule(app.store, project_id=project)
    assert not {s.image_id for s in list_sources(app, project, rule)} & set(ids)
    assert readiness(app.store, project_id=project).n_labelled == n_before - 2
    assert projects.get_project(app.store, project=project).n_images == 30
    exports.export_dataset(app, project_id=project, out=tmp_path / "dataset")
    with (tmp_path / "dataset" / "labels.csv").open(encoding="utf-8-sig") as handle:
        originals = {row["original"] for row in csv.DictReader(handle)}
    assert len(originals) == 30 and "colon/P0_00.png" not in originals
    exports.export_labels(app, project_id=project, out=tmp_path / "labels.csv")
    with (tmp_path / "labels.csv").open(encoding="utf-8-sig") as handle:
        status = {row["file"]: row["status"] for row in csv.DictReader(handle)}
    assert status["colon/P0_00.png"] == "excluded" and status["colon/P2_02.png"] == "ok"


def test_all_exact_and_near_duplicates_at_once_keep_what_contradicts(
    app: App, project: int
) -> None:
    done = quality.resolve_all(app.store, project_id=project, kind="exact", who="Bob")
    assert [images.get_image(app.store, image_id=i).name for i in done.image_ids] == [
        "liver/P1_copy.png"
    ]
    near = quality.resolve_all(app.store, project_id=project, kind="near", who="Bob")
    assert len(near.image_ids) == 1  # the pair with two labels is left for an eye
    assert names(app, project, "near") == {("colon/P2_02.png", "liver/P2_resaved.png")}
    with pytest.raises(InvalidInputError, match="need an eye"):
        quality.resolve_all(app.store, project_id=project, kind="conflict", who="Bob")
    exclusion.undo(app.store, project_id=project, action=near.action, who="Bob")
    assert len(names(app, project, "near")) == 2
    assert sound(app)


def test_one_group_for_both_is_an_event_and_can_be_taken_back(app: App, project: int) -> None:
    pair = the_pair(app, project, "groups", "colon/P3_turned.png")
    done = quality.group_pair(app.store, project_id=project, pair=pair, who="Bob")
    groups = [images.get_image(app.store, image_id=i).group for i in pair]
    assert groups[0] == groups[1] in ("P0", "P3")
    assert names(app, project, "groups") == set()
    with app.store.reading() as session:
        event = session.scalars(select(ImageEvent).where(ImageEvent.kind == "grouped")).one()
        assert event.who == "Bob"
        assert {event.details["from"], event.details["to"]} == {"P0", "P3"}
    exclusion.undo(app.store, project_id=project, action=done.action, who="Bob")
    assert {images.get_image(app.store, image_id=i).group for i in pair} == {"P0", "P3"}
    assert len(names(app, project, "groups")) == 1


def test_different_pictures_are_not_shown_again_and_other_pairs_are_refused(
    app: App, project: int
) -> None:
    pair = the_pair(app, project, "near", "colon/P3_turned.png")
    done = quality.set_apart(app.store, project_id=project, pair=pair, who="Bob")
    assert len(names(app, project, "near")) == 1
    exclusion.undo(app.store, project_id=project, action=done.action, who="Bob")
    assert len(names(app, project, "near")) == 2
    with pytest.raises(NotFoundError):
        quality.set_apart(app.store, project_id=project, pair=(1, 999), who="Bob")


def test_a_flag_that_somebody_found_right_stays_away(app: App, project: int) -> None:
    soft = id_of(app, project, "liver/P1_soft.png")
    done = quality.mark_fine(
        app.store, project_id=project, kind="blurred", image_ids=[soft], who="Bob"
    )
    scan.refresh(app.store, project_id=project)
    assert flagged(app, project, "blurred") == []
    assert quality.overview(app.store, project_id=project).counts["blurred"] == 0
    exclusion.undo(app.store, project_id=project, action=done.action, who="Bob")
    assert flagged(app, project, "blurred") == ["liver/P1_soft.png"]


def test_only_new_images_are_measured_and_they_meet_the_old_ones(
    app: App, project: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = the_pair(app, project, "near", "colon/P3_turned.png")
    quality.set_apart(app.store, project_id=project, pair=pair, who="Bob")
    save(folder / "colon" / "P2_flipped.png", tissue(4, 128)[::-1])
    read: list[Path] = []

    def counted(path: Path, *rest: Any) -> Pixels:
        read.append(path)
        return read_image(path, *rest).pixels

    monkeypatch.setattr("cnsapp.tasks.quality.read_pixels", counted)
    bring_in(app, project, folder)
    assert len(read) == 1
    assert ("colon/P0_04.png", "colon/P2_flipped.png") in names(app, project, "near")
    assert len(names(app, project, "near")) == 2  # what was answered stays answered
    look(app, project)
    assert len(read) == 1


def test_a_picture_that_is_read_otherwise_is_measured_again(app: App, project: int) -> None:
    image_id = id_of(app, project, "liver/P1_soft.png")
    with app.store.writing() as session:
        session.get_one(ImageQuality, image_id).seen = "another rule"
    rule = images.reading_rule(app.store, project_id=project)
    seen = {s.image_id: s.seen for s in list_sources(app, project, rule)}
    assert scan.unmeasured(app.store, project_id=project, seen=seen) == {image_id}
    look(app, project)
    assert scan.unmeasured(app.store, project_id=project, seen=seen) == set()
    with app.store.reading() as session:
        assert session.get_one(ImageQuality, image_id).seen == ""
        assert session.get(ImageFlag, (project, "blurred", image_id)) is not None
        assert len(session.scalars(select(NearPair)).all()) == 3


def test_tables_exclude_and_restore_from_the_command_line(
    app: App, project: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setenv("CNS_HOME", str(app.store.root))
    monkeypatch.setenv("CNS_START_WORKER", "false")
    table = tmp_path / "bad.csv"
    table.write_text("file\nliver/P1_soft.png\nliver/P1_glass.png\nnowhere.png\n")
    command = ["exclude", "--project", "p", "--csv", str(table), "--annotator", "Bob", "--json"]
    assert main([*command, "--reason", "out of focus"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["rows"], said["changed"], said["unchanged"]) == (3, 2, 0)
    assert said["unknown_files"] == ["nowhere.png"]
    soft = id_of(app, project, "liver/P1_soft.png")
    assert exclusion.image_notes(app.store, image_id=soft)[0].reason == "out of focus"
    assert main(["quality", "--project", "p", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["excluded"], found["counts"]["exact"]) == (30, 2, 1)
    assert {p["kind"] for p in found["pairs"]} == {"exact", "near"}
    assert main([*command, "--restore"]) == 0
    assert json.loads(capsys.readouterr().out)["changed"] == 2
    assert images.counts(app.store, project_id=project).images == 32
    table.write_text("picture\na.png\n")
    assert main(command) == 1
    assert "“file” or “sha256”" in capsys.readouterr().err


def test_doubts_about_classes_groups_and_folders(app: App, tmp_path: Path) -> None:
    made = projects.create_project(app.store, name="d", classes=["big", "rare"])
    for k in range(30):
        save(tmp_path / "d" / "big" / f"{'P07' if k % 2 else 'p-7'}_{k}.png", tissue(k, 40))
    for k in range(3):
        save(tmp_path / "d" / "rare" / f"Q1_{k}.png", tissue(50 + k, 40))
    importing.import_folder(
        app, project_id=made.id, path=tmp_path / "d", labels="folders", group_from=r"(\w+-?\w+?)_\d"
    )
    found = {d.kind: d.sentence for d in quality.overview(app.store, project_id=made.id).doubts}
    assert found["class_imbalance"] == "rare has 3 images, big has 30."
    assert found["class_one_group"] == "All 3 images of rare are of the group Q1."
    assert found["group_names"] == "“P07” and “p-7”"
    assert "folder_imbalance" not in found  # two folders are no distribution


def test_even_projects_have_no_outliers() -> None:
    from cnsapp.domain.flags import Measured, find_flags

    rng = np.random.default_rng(0)
    n = 5000
    given = Measured(
        focus=0.3 * np.exp(rng.normal(0, 0.2, n)),
        empty=rng.uniform(0, 0.5, n),
        over=rng.uniform(0, 0.02, n),
        under=np.zeros(n),
        color=rng.normal([60, 20, -10, 15], [4, 3, 3, 2], (n, 4)),
        width=np.full(n, 224.0),
        height=np.full(n, 224.0),
    )
    assert {
        kind: int((score > 0).sum()) for kind, score in find_flags(given).items()
    } == dict.fromkeys(("blurred", "empty", "over", "under", "color", "size"), 0)
