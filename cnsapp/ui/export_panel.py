"""Take the labelled images of a project elsewhere: a zip, by default without what files tell."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from cnsapp.services import dataset_zip, images
from cnsapp.services.exports import removed_words
from cnsapp.services.jobs import JobView
from cnsapp.services.projects import ProjectView
from cnsapp.ui import frame, words
from cnsapp.ui.frame import Here


def export_section(here: Here, project: ProjectView) -> None:
    """Draw the section of the Settings page that makes the zip and hands it out."""
    st.subheader("Export the labelled images", anchor=False)
    n = images.counts(here.app.store, project_id=project.id).labelled
    st.caption(
        "One zip: a folder for each class, and the table labels.csv. Place, owner, dates, serial "
        "numbers and comments are left out of the copies; the pixels stay as they are."
    )
    job = dataset_zip.latest_export(here.app, project_id=project.id)
    if job is not None and job.is_active:
        frame.job_progress(job.id)
        return
    keep = st.checkbox(
        "Keep the metadata of the files",
        key="export_keep_metadata",
        help="The copies are then the files as they came: with GPS place, owner, serial numbers, "
        "dates, and label pictures of slides.",
    )
    if st.button(
        f"Make a zip of {words.plural(n, 'image')}",
        key="export_start",
        icon=":material/folder_zip:",
        disabled=n == 0,
        help="Label some images first." if n == 0 else None,
    ):
        dataset_zip.start_export(
            here.app,
            project_id=project.id,
            keep_metadata=bool(keep),
            requested_by=here.annotator or "",
        )
        st.rerun()
    if job is not None:
        _outcome(here, job)


def _outcome(here: Here, job: JobView) -> None:
    """Say what the last zip holds and offer it; a failed job looks failed."""
    if job.state != "done":
        frame.job_progress(job.id)
        return
    path = dataset_zip.zip_of(here.app, job)
    if path is None:
        return
    facts = job.result
    st.link_button(
        f"Download {words.plain(path.name)}",
        f"/files/export/{path.name}",
        icon=":material/download:",
        key="export_download",
    )
    size, n = words.size(path.stat().st_size), words.plural(int(facts.get("n", 0)), "image")
    said = [f"{n}, {size}, made {words.ago(job.finished_at)}."]
    if facts.get("kept_metadata"):
        said.append("It holds all that the files tell of places, people and devices.")
    elif facts.get("removed"):
        said.append(f"Left out of the copies: {removed_words(facts['removed'])}.")
    if facts.get("n_missing"):
        said.append(f"{words.plural(int(facts['n_missing']), 'file')} missing on disk.")
    st.caption(" ".join(said))
    if facts.get("n_refused"):
        st.warning(
            f"{words.plural(int(facts['n_refused']), 'image')} not in it: the metadata could not "
            "be removed."
        )
        st.dataframe(
            pd.DataFrame(facts["refused"], columns=["file", "reason"]),
            hide_index=True,
            key="export_refused",
        )
