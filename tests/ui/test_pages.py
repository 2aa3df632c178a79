"""Every page: with nothing in it, as it usually is, and when something is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnsapp.bootstrap import App
from cnsapp.services import jobs, models, projects
from cnsapp.services.projects import create_project, list_classes
from db.models import Job
from tests.integration.worlds import World, relabel
from tests.ui.conftest import Screen

PAGES = ("home", "images", "label", "train", "review", "explain", "predict", "models", "settings")
NEED_A_PROJECT = ("images", "train", "review", "explain", "predict", "models")


def set_job(app: App, job_id: int, **values: object) -> None:
    """Change a job's row as the worker would."""
    with app.store.writing() as session:
        row = session.get_one(Job, job_id)
        for name, value in values.items():
            setattr(row, name, value)


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_calmly_in_an_empty_installation(screen: Screen, page: str) -> None:
    screen.open(page)
    assert screen.errors == []
    assert len(screen.primary) <= 1
    assert "Research use only" in screen.words


@pytest.mark.parametrize("page", NEED_A_PROJECT)
def test_a_page_without_a_project_leads_home(screen: Screen, page: str) -> None:
    screen.open(page)
    assert "Make a project first" in screen.words
    assert screen.primary == ["Go to Home"]


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_calmly_in_a_project_without_images(
    app: App, screen: Screen, page: str
) -> None:
    create_project(app.store, name="empty", scheme="organ-systems")
    screen.open(page)
    assert screen.errors == []
    assert len(screen.primary) <= 1


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("model_id")
def test_every_page_opens_calmly_in_a_project_with_a_model(screen: Screen, page: str) -> None:
    screen.open(page)
    assert screen.errors == []
    assert len(screen.primary) <= 1


# home ---------------------------------------------------------------------------------------


def test_home_makes_a_project_with_the_organ_systems_and_goes_to_its_images(
    app: App, screen: Screen
) -> None:
    screen.open("home")
    screen.test.text_input(key="new_name").input("Colon study").run()
    screen.press("new_create")
    project = projects.get_project(app.store, project="Colon study")
    assert len(list_classes(app.store, project_id=project.id)) == 12
    assert [title.value for title in screen.test.title] == ["Images"]


def test_home_makes_a_project_with_own_classes(app: App, screen: Screen) -> None:
    screen.open("home")
    screen.test.text_input(key="new_name").input("Own")
    screen.test.segmented_control(key="new_kind").set_value("My own").run()
    screen.test.text_area(key="new_classes").input("tumour\n\nstroma\n").run()
    screen.press("new_create")
    project = projects.get_project(app.store, project="Own")
    names = [c.name for c in list_classes(app.store, project_id=project.id)]
    assert names == ["tumour", "stroma"]


def test_home_refuses_classes_that_read_alike(app: App, screen: Screen) -> None:
    screen.open("home")
    screen.test.text_input(key="new_name").input("Own")
    screen.test.segmented_control(key="new_kind").set_value("My own").run()
    screen.test.text_area(key="new_classes").input("Liver\nliver ").run()
    screen.press("new_create")
    assert "same class name" in screen.words
    assert projects.list_projects(app.store) == []


def test_home_asks_for_the_demo_once_and_lands_in_it(app: App, screen: Screen) -> None:
    screen.open("home").press("demo_start")
    found = jobs.list_jobs(app.store)
    assert [job.kind for job in found] == ["demo"]
    project = create_project(app.store, name="Demo")
    set_job(app, found[0].id, state="done", result={"project_id": project.id})
    screen.test.run()
    assert [title.value for title in screen.test.title] == ["Images"]
    assert screen.test.session_state["project"] == project.id


def test_home_shows_a_demo_that_failed(app: App, screen: Screen) -> None:
    screen.open("home").press("demo_start")
    set_job(app, jobs.list_jobs(app.store)[0].id, state="failed", error="The disk is full.")
    screen.test.run()
    assert "The disk is full." in screen.words
    assert screen.has("demo_start")


@pytest.mark.usefixtures("world")
def test_home_names_the_next_thing_to_do(screen: Screen) -> None:
    screen.open("home")
    assert screen.primary == ["Train a quick model"]


@pytest.mark.usefixtures("model_id")
def test_home_leads_to_review_once_there_is_a_model(screen: Screen) -> None:
    assert screen.open("home").primary == ["Review the model"]


def test_home_says_to_train_again_when_labels_changed(
    screen: Screen, world: World, model_id: int
) -> None:
    assert model_id
    relabel(world, world.image_ids[0][0], world.class_ids[1])
    assert screen.open("home").primary == ["Train again"]


# the frame ----------------------------------------------------------------------------------


def test_the_address_chooses_the_project_and_who_labels(app: App, screen: Screen) -> None:
    first = create_project(app.store, name="first")
    create_project(app.store, name="second")
    screen.open("home", project=first.id, who="Ann  Lee")
    assert [t.value for t in screen.test.title] == ["first"]
    assert screen.test.session_state["who"] == "Ann Lee"


@pytest.mark.parametrize("given", ["999", "0000000000011", "x", "", "-1", "٣"])
def test_a_strange_project_in_the_address_falls_back_to_the_newest(
    app: App, screen: Screen, given: str
) -> None:
    create_project(app.store, name="first")
    create_project(app.store, name="second")
    screen.open("home", project=given)
    assert [t.value for t in screen.test.title] == ["second"]
    assert screen.errors == []


def test_a_running_job_can_be_stopped_from_the_sidebar(
    app: App, screen: Screen, world: World
) -> None:
    job_id = jobs.submit_job(app.store, kind="features", project_id=world.project_id)
    screen.open("models").press(f"frame_job_{job_id}_stop")
    assert jobs.get_job(app.store, job_id=job_id).state == "cancelled"


def test_a_database_that_is_read_only_is_said_on_a_calm_page(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir()
    (home / "cns.sqlite").write_bytes(b"this is no database at all, but a text")
    monkeypatch.setenv("CNS_HOME", str(home))
    screen = Screen()
    screen.test.run()
    assert len(screen.errors) == 1
    assert "is not a database" in screen.words
    assert (home / "cns.sqlite").read_bytes().startswith(b"this is no database")


def test_what_nobody_foresaw_becomes_a_sentence_without_a_traceback(
    screen: Screen, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world
    monkeypatch.setattr("cnsapp.services.training.readiness", lambda *_a, **_k: 1 / 0)
    screen.open("train")
    assert "Something went wrong on this page" in screen.words
    assert "ZeroDivision" not in screen.words
    assert not screen.test.exception


# images -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("world")
def test_images_filters_and_pages(screen: Screen) -> None:
    screen.open("images")
    assert "28 images: 24 labelled, 4 without a label." in screen.words
    screen.test.text_input(key="find").input("no such name").run()
    assert "No image matches" in screen.words


@pytest.mark.usefixtures("world")
def test_images_takes_its_filters_from_the_address(screen: Screen) -> None:
    screen.open("images", show="Labelled", find="class2/")
    assert screen.test.selectbox(key="show").value == "Labelled"
    assert "No image matches" in screen.words  # those are the ones without a label
    assert screen.errors == []


def test_images_does_not_stay_on_a_page_that_has_emptied(screen: Screen, world: World) -> None:
    screen.open("images")
    screen.test.session_state["img_at"] = {"after": world.image_ids[2][-1]}
    screen.test.run()
    assert "No image matches" not in screen.words


def test_images_asks_for_an_import_with_labels_from_folders(
    app: App, screen: Screen, tmp_path: Path
) -> None:
    project = create_project(app.store, name="new")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"not looked at before the job")
    screen.open("images")
    screen.test.text_input(key="import_path").input(str(tmp_path / "pictures")).run()
    screen.test.radio(key="import_labels").set_value("Folder names").run()
    screen.press("import_start")
    (job,) = jobs.list_jobs(app.store, project_id=project.id)
    assert (job.kind, job.payload["labels"], job.payload["group_from"]) == (
        "import",
        "folders",
        None,
    )
    assert job.payload["allowed_roots"] == [str(tmp_path)]


def test_images_previews_which_group_the_pattern_finds(
    app: App, screen: Screen, tmp_path: Path
) -> None:
    create_project(app.store, name="new")
    (tmp_path / "pictures").mkdir()
    for name in ("case_1_a.png", "case_2_b.png", "other.png"):
        (tmp_path / "pictures" / name).write_bytes(b"x")
    screen.open("images")
    screen.test.text_input(key="import_path").input(str(tmp_path / "pictures")).run()
    screen.test.radio(key="import_group").set_value("Part of the file name").run()
    screen.test.text_input(key="import_pattern").input(r"(case_\d+)").run()
    assert "Found 3 files, 2 groups." in screen.words
    assert "1 file would get no group" in screen.words
    screen.test.text_input(key="import_pattern").input("(case").run()
    assert "no valid regular expression" in screen.words


def test_images_refuses_a_folder_outside_the_allowed_ones(app: App, screen: Screen) -> None:
    create_project(app.store, name="new")
    screen.open("images")
    screen.test.text_input(key="import_path").input(str(Path(__file__).parent)).run()
    screen.press("import_start")
    assert "outside the folders" in screen.words
    assert jobs.list_jobs(app.store) == []


def test_images_reports_what_an_import_skipped_and_why(app: App, screen: Screen) -> None:
    project = create_project(app.store, name="new")
    job_id = jobs.submit_job(app.store, kind="import", project_id=project.id)
    result = {
        "found": 3, "imported": 1, "duplicates": 1, "labelled": 0, "notes": [], "new_classes": [],
        "skipped": [{"file": "half.jpg", "reason": "The file ends too early."}],
    }  # fmt: skip
    set_job(app, job_id, state="done", result=result)
    screen.open("images")
    assert "1 file skipped" in screen.words
    assert screen.test.dataframe[0].value.iloc[0].tolist() == [
        "half.jpg",
        "The file ends too early.",
    ]


def test_the_words_of_a_job_are_shown_letter_by_letter(app: App, screen: Screen) -> None:
    project = create_project(app.store, name="*new*")
    job_id = jobs.submit_job(app.store, kind="import", project_id=project.id)
    set_job(app, job_id, state="failed", error="No ![x](http://elsewhere/a.png) in $a_b_c$.")
    screen.open("home")
    assert screen.test.title[0].value == r"\*new\*"
    screen.open("images")
    (error,) = screen.errors
    assert r"!\[x\](http" in error and r"\$a\_b\_c\$" in error


def test_images_says_why_an_import_failed(app: App, screen: Screen) -> None:
    project = create_project(app.store, name="new")
    job_id = jobs.submit_job(app.store, kind="import", project_id=project.id)
    set_job(app, job_id, state="failed", error="There are no images in /data/empty.")
    screen.open("images")
    assert "There are no images in /data/empty." in screen.words


# train --------------------------------------------------------------------------------------


def test_train_says_what_is_missing_and_leads_to_labelling(app: App, screen: Screen) -> None:
    create_project(app.store, name="new", classes=["liver", "colon"])
    screen.open("train")
    assert "no images yet" in screen.words
    assert not screen.has("train_start")


def test_train_starts_a_run_and_shows_it(app: App, screen: Screen, world: World) -> None:
    screen.open("train").press("train_start")
    (job,) = jobs.list_jobs(app.store, project_id=world.project_id)
    assert job.kind == "train"
    assert screen.primary == [] and "Quick model · EfficientNet-Lite0" in screen.words
    screen.press("train_start")  # the same once more is refused, in words
    assert "This very training run" in screen.errors[0]
    assert len(jobs.list_jobs(app.store, project_id=world.project_id)) == 1


def test_train_shows_a_failed_run_as_failed(app: App, screen: Screen, world: World) -> None:
    job_id = jobs.submit_job(app.store, kind="train", project_id=world.project_id)
    set_job(app, job_id, state="failed", error="The computer ran out of memory.")
    screen.open("train")
    assert "The computer ran out of memory." in screen.words
    assert screen.has("train_start")


# review and explain ---------------------------------------------------------------------------


def test_review_says_which_predictions_the_score_is_made_of(screen: Screen, model_id: int) -> None:
    screen.open("review", model=model_id)
    assert "Out-of-fold predictions of 24 images" in screen.words
    assert "had not seen it" in screen.words


def test_review_names_the_cell_of_the_address(screen: Screen, world: World, model_id: int) -> None:
    liver, colon = world.class_ids
    screen.open("review", model=model_id, cell=f"{liver}-{colon}")
    assert "Labelled liver, predicted as colon" in screen.words


@pytest.mark.parametrize("cell", ["x", "1", "-", "999-999", "1-x", "²-1", "1-" + "9" * 30])
def test_review_takes_no_harm_from_a_strange_cell(screen: Screen, model_id: int, cell: str) -> None:
    screen.open("review", model=model_id, cell=cell)
    assert screen.errors == []


def test_review_says_that_labels_changed_since(screen: Screen, world: World, model_id: int) -> None:
    relabel(world, world.image_ids[0][0], world.class_ids[1])
    screen.open("review", model=model_id)
    assert "Labels changed since this model:** 1 changed" in screen.words


def test_explain_asks_for_one_map_and_waits_for_it(
    app: App, screen: Screen, world: World, model_id: int
) -> None:
    image_id = world.image_ids[0][5]
    screen.open("explain", model=model_id, image=image_id)
    screen.test.run()
    asked = [job for job in jobs.list_jobs(app.store) if job.kind == "explain"]
    assert [job.payload["image_id"] for job in asked] == [image_id]
    assert "Making the map" in screen.words
    assert "Labelled and predicted as **liver**" in screen.words


def test_explain_asks_for_both_maps_where_label_and_prediction_differ(
    app: App, screen: Screen, world: World, model_id: int
) -> None:
    screen.open("explain", model=model_id, image=world.image_ids[0][0])
    targets = {job.payload["target_class"] for job in jobs.list_jobs(app.store)}
    assert targets == set(world.class_ids)


def test_explain_says_why_a_map_failed_and_does_not_ask_again_by_itself(
    app: App, screen: Screen, world: World, model_id: int
) -> None:
    screen.open("explain", model=model_id, image=world.image_ids[0][5])
    (job,) = jobs.list_jobs(app.store)
    set_job(app, job.id, state="failed", error="The image cannot be read.")
    screen.test.run()
    assert "The image cannot be read." in screen.words
    assert len(jobs.list_jobs(app.store)) == 1
    screen.press("explain_again_0")
    assert len(jobs.list_jobs(app.store)) == 2


def test_explain_says_when_the_model_file_was_altered(
    app: App, screen: Screen, world: World, model_id: int
) -> None:
    model = models.get_model(app.store, model_id=model_id)
    app.store.path(model.path).write_bytes(b"something else")
    screen.open("explain", model=model_id, image=world.image_ids[0][5])
    assert "was altered after training" in screen.words


def test_explain_of_an_image_that_does_not_exist_says_so(screen: Screen, model_id: int) -> None:
    screen.open("explain", model=model_id, image=99999)
    assert "There is no image number 99999" in screen.words


# predict, models, settings ----------------------------------------------------------------------


def test_predict_refuses_a_folder_outside_the_allowed_ones(
    app: App, screen: Screen, model_id: int
) -> None:
    assert model_id
    screen.open("predict")
    screen.test.segmented_control(key="predict_from").set_value("Folder on this computer").run()
    screen.test.text_input(key="predict_path").input(str(Path(__file__).parent)).run()
    screen.press("predict_start")
    assert "outside the folders" in screen.words
    assert jobs.list_jobs(app.store) == []


def test_predict_takes_what_a_pixel_of_a_slide_measures(
    app: App, screen: Screen, model_id: int, tmp_path: Path
) -> None:
    assert model_id
    (tmp_path / "a.svs").write_bytes(b"II*\0")
    screen.open("predict")
    screen.test.segmented_control(key="predict_from").set_value("Folder on this computer").run()
    screen.test.text_input(key="predict_path").input(str(tmp_path / "a.svs")).run()
    screen.test.number_input(key="predict_slide_um").set_value(0.25).run()
    screen.press("predict_start")
    (job,) = jobs.list_jobs(app.store)
    assert job.payload["tiles"]["slide_um_per_px"] == 0.25
    assert job.payload["tiles"]["um_per_px"] == 0.5  # the rest as the project's slides are cut


def test_predict_shows_table_and_failed_files(
    app: App, screen: Screen, world: World, model_id: int
) -> None:
    job_id = jobs.submit_job(app.store, kind="predict", project_id=world.project_id)
    app.store.path("exports", "prediction.csv").write_text(
        "file,sha256,predicted,confidence,decision,model_id,p_liver,p_colon\n"
        f"a.png,00,liver,0.9,liver,{model_id},0.9,0.1\n"
        f"b.png,01,colon,0.55,unsure,{model_id},0.45,0.55\n",
        encoding="utf-8",
    )
    result = {
        "csv": "exports/prediction.csv",
        "model_id": model_id,
        "failed": [{"file": "c.png", "reason": "The file is empty."}],
    }
    set_job(app, job_id, state="done", result=result)
    screen.open("predict")
    assert "2 images" in screen.words
    assert "1 file could not be read" in screen.words
    screen.test.segmented_control(key="predict_view").set_value("Table").run()
    screen.test.selectbox(key="predict_decision").set_value("Unsure").run()
    assert screen.test.dataframe[-1].value["file"].tolist() == ["b.png"]


def test_models_says_when_the_file_is_missing(app: App, screen: Screen, model_id: int) -> None:
    app.store.path(models.get_model(app.store, model_id=model_id).path).unlink()
    screen.open("models", model=model_id)
    assert "is missing" in screen.words


def test_models_renames(app: App, screen: Screen, model_id: int) -> None:
    screen.open("models", model=model_id)
    screen.test.text_input(key=f"model_name_{model_id}").input("Best so far").run()
    screen.press("model_rename")
    assert models.get_model(app.store, model_id=model_id).name == "Best so far"


def test_settings_adds_and_renames_classes(app: App, screen: Screen, world: World) -> None:
    screen.open("settings")
    screen.test.text_input(key="class_add_name").input("spleen")
    screen.press("class_add")
    names = [c.name for c in list_classes(app.store, project_id=world.project_id)]
    assert names == ["liver", "colon", "spleen"]
    screen.test.text_input(key=f"class_rename_{world.class_ids[0]}").input("Colon ").run()
    screen.press("class_rename")
    assert "same class name" in screen.words


def test_settings_checks_the_installation(screen: Screen) -> None:
    screen.open("settings").press("settings_check")
    assert "the database file is whole" in screen.words
