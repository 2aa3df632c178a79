"""The table of a prediction is read once, however often the page is drawn."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cnsapp.bootstrap import App
from cnsapp.services.jobs import submit_job
from cnsapp.services.predicting import read_results
from cnsapp.services.projects import create_project
from db.models import Job

HEAD = "file,sha256,predicted,confidence,decision,model_id,p_a\n"


def test_the_table_is_read_again_only_when_it_changed(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = app.store.path("exports", "prediction.csv")
    table.write_text(HEAD + "1.png,00,a,0.9,a,1,0.9\n", encoding="utf-8-sig")
    job_id = submit_job(
        app.store, kind="predict", project_id=create_project(app.store, name="p").id, payload={}
    )
    with app.store.writing() as session:
        job = session.get_one(Job, job_id)
        job.state, job.result = "done", {"csv": "exports/prediction.csv", "model_id": 1}
    read: list[Path] = []
    whole = pd.read_csv

    def counted(path: Path, **choices: Any) -> pd.DataFrame:
        read.append(path)
        return whole(path, **choices)

    monkeypatch.setattr(pd, "read_csv", counted)
    for _rerun in range(3):
        assert list(read_results(app, job_id=job_id).rows["file"]) == ["1.png"]
    assert read == [table]
    table.write_text(HEAD + "2.png,00,a,0.9,a,1,0.9\n", encoding="utf-8-sig")
    os.utime(table, ns=(1, 1))
    assert list(read_results(app, job_id=job_id).rows["file"]) == ["2.png"]
    assert read == [table, table]
