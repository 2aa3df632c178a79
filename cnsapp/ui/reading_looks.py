"""Images of the project as they are and as another rule would show them, side by side."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import streamlit as st

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError
from cnsapp.imaging.rule import ReadingRule
from cnsapp.services import reading_preview
from cnsapp.services.projects import ProjectView
from cnsapp.services.reading_preview import Look
from cnsapp.ui import frame
from cnsapp.ui.components import thumb_url
from cnsapp.ui.tables import text

STYLE = Path(__file__).with_name("looks.css")


def looks(app: App, project: ProjectView, wished: ReadingRule | None) -> None:
    """Draw some images now and by the rule that is wished for; None: as they are.

    Pictures that take longer come by themselves; the page is not held up by them.
    """
    st.markdown("**As they are read now**" + (" **and as they would be**" if wished else ""))
    if wished is None:
        shown = reading_preview.examples(app, project_id=project.id)
        _draw(shown, single=True)
        return
    found = reading_preview.preview(app, project_id=project.id, rule=wished)
    if not found:
        st.caption("No image of the project looks different.")
    elif any(look.is_pending for look in found):
        st.fragment(partial(_watch, app, project.id, wished), run_every=1.0, key="reading_looks")()
    else:
        _draw(found)


def _watch(app: App, project_id: int, wished: ReadingRule) -> None:
    try:
        found = reading_preview.preview(app, project_id=project_id, rule=wished, patience=0.3)
    except CnsError as error:
        frame.show_error(error)
        return
    if not any(look.is_pending for look in found):
        st.rerun()
    _draw(found)


def _draw(found: Sequence[Look], single: bool = False) -> None:
    figures = "".join(_figure(look, single) for look in found)
    st.html(STYLE)
    kind = "cns-looks single" if single else "cns-looks"
    st.html(f'<div class="{kind}">{figures}</div>')


def _figure(look: Look, single: bool) -> str:
    name = look.image.name
    before = (
        f'<img src="{text(thumb_url(look.image.id, look.image.version))}" '
        f'alt="{text(name)} as it is read now">'
    )
    if single:
        after, heads = "", ""
    else:
        heads = '<div class="heads"><span>now</span><span>new</span></div>'
        if look.picture is not None:
            data = base64.b64encode(look.picture).decode()
            after = f'<img src="data:image/jpeg;base64,{data}" alt="{text(name)} as it would be">'
        else:
            after = f'<div class="no">{text(look.reason or "is being read…")}</div>'
    kind = f" · {text(look.kind)}" if look.kind else ""
    return (
        f'<figure>{heads}<div class="pair">{before}{after}</div>'
        f'<figcaption title="{text(name)}">{text(name.rsplit("/", 1)[-1])}'
        f'<span class="cns-muted">{kind}</span></figcaption></figure>'
    )
