"""A look at a locked test set on a screen: what it costs is said first, and then it is noted."""

from __future__ import annotations

import streamlit as st

from cnsapp.services import review, splits
from cnsapp.services.models import ModelView
from cnsapp.ui import frame, words
from cnsapp.ui.frame import Here

LOOKED = "looked_at_test"  # in the session: the models whose test answers were looked at


def may_look(here: Here, model: ModelView, page: str) -> bool:
    """Say what a look at the locked test set costs, and note it once somebody takes it.

    `page` is where: Review or Explain. A look on the one opens the other too.
    """
    split_id = review.test_split(here.app.store, model_id=model.id) or 0
    seen: set[int] = st.session_state.setdefault(LOOKED, set())
    if model.id in seen:
        n = splits.count_uses(here.app.store, split_id=split_id)
        st.caption(
            f":material/lock: Locked test set of {frame.plain(model.name)}: looked at "
            f"{words.times(n)}, this look included. Say so beside its score."
        )
        return True
    n = splits.count_uses(here.app.store, split_id=split_id)
    looked = f"looked at {words.times(n)} so far" if n else "not looked at yet"
    with st.container(border=True, key=f"{page.lower()}_locked"):
        st.markdown(
            f":material/lock: **The locked test set was {looked}.** "
            "Whoever looks and then changes labels, settings or the model makes its score a little "
            "too good. The look is noted with your name and counted beside the score."
        )
        key = f"{page.lower()}_look"
        if st.button("Look at the test set", key=key, icon=":material/visibility:"):
            with frame.guard():
                splits.look(
                    here.app.store, split_id=split_id, model_id=model.id, who=here.annotator,
                    purpose=page,
                )  # fmt: skip
                seen.add(model.id)
                st.rerun()
    return False
