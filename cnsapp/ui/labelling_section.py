"""Settings of a project's labelling: whose word counts, suggestions, the queue's random share."""

from __future__ import annotations

import streamlit as st

from cnsapp.domain.consensus import MOST_READERS, ConsensusRule
from cnsapp.errors import CnsError
from cnsapp.services import label_settings
from cnsapp.services.projects import ProjectView
from cnsapp.ui import frame
from cnsapp.ui.frame import Here

LATEST, MAJORITY = "The latest label counts", "A majority of readers decides"


def labelling_section(here: Here, project: ProjectView) -> None:
    """Draw the settings; they change when “Save” is pressed."""
    now = label_settings.read_settings(here.app.store, project_id=project.id)
    st.subheader("Labelling", anchor=False)
    st.caption("For everybody who labels in this project. Nothing here changes or deletes a label.")
    with st.form("labelling_form", border=False, width=640):
        kind = st.radio(
            "When several people label one image",
            [LATEST, MAJORITY],
            index=int(now.rule.kind == "majority"),
            key=f"label_rule_{project.id}",
            help="By a majority, an image waits until enough people have read it; what they cannot "
            "agree on is left undecided until somebody settles it. It can be changed back at any "
            "time.",
        )
        readers = st.number_input(
            "Readers an image needs (majority only)",
            2,
            MOST_READERS,
            value=now.rule.readers,
            key=f"label_readers_{project.id}",
            width=320,
        )
        every = st.number_input(
            "New suggestions after so many labels",
            0,
            label_settings.MOST_LABELS,
            value=now.suggest_every,
            key=f"suggest_every_{project.id}",
            help="The quick model behind the suggestions learns again by itself. 0: only when "
            "asked.",
            width=320,
        )
        share = st.slider(
            "Random share of the queue",
            0,
            50,
            value=round(100 * now.random_share),
            format="%d %%",
            key=f"random_share_{project.id}",
            help="The rest is what the model is least sure of. Figures from hard images alone look "
            "worse than the model is; the random ones keep them honest.",
            width=320,
        )
        blind = st.toggle(
            "Blind: hide what models and other people think while labelling",
            value=now.blind,
            key=f"blind_{project.id}",
        )
        if not st.form_submit_button("Save", key="labelling_save"):
            return
    rule = ConsensusRule("majority" if kind == MAJORITY else "latest", int(readers or 2))
    try:
        with st.spinner("Saving; images that several people read are decided anew…"):
            label_settings.change_settings(
                here.app.store,
                project_id=project.id,
                rule=rule,
                suggest_every=int(every or 0),
                random_share=(share or 0) / 100,
                blind=bool(blind),
            )
    except CnsError as error:
        frame.show_error(error)
    else:
        st.rerun()
