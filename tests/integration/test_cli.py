"""The commands from outside: exit status, words on stderr, JSON on stdout."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Picture

from tests.integration.worlds import draw

ROOT = Path(__file__).resolve().parents[2]


class Commands:
    """Runs `python -m cnsapp` on a data folder of its own."""

    def __init__(self, home: Path) -> None:
        self.env = {**os.environ, "CNS_HOME": str(home)}

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "cnsapp", *map(str, arguments)],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def json(self, *arguments: object) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def cns(home: Path) -> Commands:
    return Commands(home)


def test_help_and_project_list_load_neither_torch_nor_the_queue_nor_streamlit(
    cns: Commands,
) -> None:
    code = (
        "import sys; from cnsapp.cli import main; main(['project', 'list']);"
        "heavy = {'torch', 'dbos', 'streamlit', 'captum', 'timm', 'pandas'} & set(sys.modules);"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=cns.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_command_has_help(cns: Commands) -> None:
    text = cns.run("--help").stdout
    for command in ("init", "run", "demo", "import", "label", "train", "jobs", "cancel", "worker",
                    "models", "predict", "explain", "report", "backup", "restore", "doctor",
                    "import-project", "project", "export"):  # fmt: skip
        assert f"\n  {command} " in text


def test_wrong_usage_exits_2_and_an_error_exits_1_in_words(cns: Commands) -> None:
    assert cns.run("train").returncode == 2
    assert cns.run("train", "--project", "p", "--set", "seed").returncode == 2
    done = cns.run("models", "--project", "none")
    assert (done.returncode, done.stdout) == (1, "")
    assert "There is no project “none”" in done.stderr


def test_training_without_images_is_refused_before_it_starts(cns: Commands) -> None:
    cns.run("project", "create", "p", "--classes", "a,b")
    done = cns.run("train", "--project", "p", "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no images yet" in done.stderr
    assert cns.json("jobs") == []


def test_class_names_that_read_alike_are_refused(cns: Commands) -> None:
    done = cns.run("project", "create", "p", "--classes", "Liver, liver")
    assert done.returncode == 1
    assert "same class name" in done.stderr


def test_commands_that_are_not_there_yet_say_so(cns: Commands, tmp_path: Path) -> None:
    cns.run("init")
    for arguments in (
        ("report", "--model", "1", "--out", tmp_path / "r.html"),
        ("export", "project", "--project", "p", "--out", tmp_path / "p.zip"),
        ("import-project", tmp_path / "p.zip"),
    ):
        for flag in ((), ("--json",)):
            done = cns.run(*arguments, *flag)
            assert done.returncode == 1 and "not there yet" in done.stderr
            assert done.stdout == ""


def test_a_worker_says_in_json_for_which_folder_it_works(cns: Commands, home: Path) -> None:
    done = cns.run("worker", "--device", "cpu", "--until-job", "1", "--json")  # there is no job 1
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"home": str(home), "device": "cpu"}


def test_doctor_backup_and_restore_work_from_the_command_line(
    cns: Commands, home: Path, tmp_path: Path
) -> None:
    cns.run("project", "create", "p", "--classes", "a,b")
    assert cns.json("doctor")["sound"] is True
    backup = tmp_path / "b.zip"
    assert cns.json("backup", "--out", backup)["n_files"] == 1
    facts = cns.json("restore", backup)
    assert Path(facts["moved_aside"]).name.startswith(home.name + ".before-restore-")
    assert cns.json("project", "list")[0]["name"] == "p"


@pytest.mark.slow
def test_the_whole_loop_by_commands(cns: Commands, tmp_path: Path) -> None:
    pictures = tmp_path / "in"
    for kind, name in enumerate(("liver", "lung", "skin")):
        for seed in range(12):
            draw(pictures / name / f"{seed}.png", kind, seed * 7 + kind)
    cns.json("project", "create", "p", "--classes", "liver,lung,skin")
    report = cns.json("import", pictures, "--project", "p", "--labels", "folders")
    assert (report["found"], report["imported"], report["labelled"]) == (36, 36, 36)

    trained = cns.json("train", "--project", "p", "--preset", "quick", "--wait")
    assert trained["state"] == "done"
    assert trained["metrics"]["balanced_accuracy"] > 0.8
    models = cns.json("models", "--project", "p")
    assert [m["id"] for m in models] == [trained["model_id"]]

    draw(pictures / "new" / "=1+1.png", 0, 999)
    (pictures / "new" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not an image")
    out = tmp_path / "p.csv"
    facts = cns.json("predict", pictures / "new", "--project", "p", "--out", out)
    assert [f["file"] for f in facts["failed"]] == ["broken.jpg"]
    with out.open(newline="", encoding="utf-8-sig") as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == ["file", "sha256", "predicted", "confidence", "decision", "model_id",
                             "p_liver", "p_lung", "p_skin"]  # fmt: skip
    assert (rows[0]["file"], rows[0]["predicted"]) == ("'=1+1.png", "liver")
    assert sum(float(rows[0][f"p_{c}"]) for c in ("liver", "lung", "skin")) == pytest.approx(1)

    png = tmp_path / "e.png"
    shown = pictures / "lung" / "3.png"
    facts = cns.json("explain", shown, "--project", "p", "--target", "lung", "--out", png)
    assert facts["class"] == "lung"
    with Picture.open(png) as overlay, Picture.open(shown) as original:
        assert overlay.size == original.size
    done = cns.run("explain", shown, "--project", "p", "--target", "brain", "--out", png)
    assert done.returncode == 1 and "does not know a class “brain”" in done.stderr
