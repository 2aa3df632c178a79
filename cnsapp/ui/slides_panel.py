"""Whole slides on the screen: how an import cuts them, and the list of a project's slides."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from cnsapp.bootstrap import App
from cnsapp.imaging.tiling import TileSettings
from cnsapp.services import slides
from cnsapp.services.importing import Preview
from cnsapp.services.projects import ProjectView
from cnsapp.services.slides import SlidePreview, SlideView
from cnsapp.ui import frame, words
from cnsapp.ui.frame import Here
from cnsapp.ui.tables import text

SEEN = "import_slides"  # of the session: (path, names of its slides) of the last preview
SHOWN = 60
UM_HELP = (
    "0.5 is what scanners call “20x”, 0.25 is “40x”. Slides are resampled to it from their next "
    "finer level, so that all tiles show tissue at one scale. Slides that are coarser are skipped."
)
SLIDE_UM_HELP = "Only for slides whose files do not say it; the others are not touched by it."


def remember(path: str, found: Preview) -> None:
    """Keep which slides a preview found, so that their settings stay on the screen."""
    st.session_state[SEEN] = (path, list(found.slides))


def tile_choices(here: Here, project: ProjectView, path: str) -> TileSettings | None:
    """Draw how the slides of a folder are cut, where a preview found any; return the settings.

    None without slides. Raises InvalidInputError when the settings cannot be used.
    """
    seen_path, names = st.session_state.get(SEEN, ("", []))
    if seen_path != path or not names:
        return None
    with st.container(border=True, key="import_slides"):
        st.markdown(
            f"**{words.plural(len(names), 'whole slide')}.** Tissue is cut into tiles, which "
            "become images like any others; the slide or its patient is their group."
        )
        left, right = st.columns([2, 3], gap="large")
        with left:
            usual = slides.latest_settings(here.app.store, project_id=project.id)
            settings = _fields(usual).checked()
        with right, frame.guard():
            _show_first(here, project, path, settings)
    return settings


def _fields(usual: TileSettings) -> TileSettings:
    size = st.number_input(
        "Tile size (px)", 32, 4096, usual.tile_px, step=64, key="slides_tile_px",
        help="Side of the images that are stored. 512 px at 0.5 µm/px show 256 µm of tissue: a "
        "gland with its surroundings.",
    )  # fmt: skip
    as_scanned = st.checkbox(
        "Keep the slide's own pixels", usual.um_per_px is None, key="slides_as_scanned",
        help="No resampling; right only when all slides were scanned at one magnification.",
    )  # fmt: skip
    um: float | None = None
    if not as_scanned:
        um = st.number_input(
            "Micrometres a pixel", 0.02, 20.0, usual.um_per_px or 0.5, step=0.05,
            format="%.3f", key="slides_um", help=UM_HELP,
        )  # fmt: skip
    overlap = st.slider(
        "Overlap", 0, 75, round(usual.overlap * 100), step=5, format="%d %%", key="slides_overlap",
        help="How much of a tile its neighbour shows too.",
    )  # fmt: skip
    tissue = st.slider(
        "Least tissue", 0, 100, round(usual.min_tissue * 100), step=5, format="%d %%",
        key="slides_tissue",
        help="Tiles with less tissue than this are left out. 0 % keeps the empty glass too.",
    )  # fmt: skip
    own = stated_um("slides_own_um")
    return TileSettings(int(size), um, overlap / 100, tissue / 100, own)


def stated_um(key: str) -> float | None:
    """Draw the field for slides that do not say what a pixel measures, in micrometres."""
    return st.number_input(
        "The slides have (µm/px)", 0.02, 20.0, None, step=0.05, format="%.3f",
        key=key, placeholder="as their files say", help=SLIDE_UM_HELP,
    )  # fmt: skip


def _show_first(here: Here, project: ProjectView, path: str, settings: TileSettings) -> None:
    found = _previewed(here.app, project.id, path, settings)
    if found is None:
        return
    if found.png:
        st.image(found.png, width="stretch")
    facts = found.facts
    size = f", {facts.width:,} × {facts.height:,} px" if facts else ""
    um = "µm/px unknown"
    if facts is not None and facts.mean_um_per_px is not None:
        um = f"{facts.mean_um_per_px:.3g} µm/px"
    if found.reason:
        st.warning(words.plain(f"{found.name}: {found.reason}"))
        return
    more = f" The other {found.n_slides - 1:,} are cut the same way." if found.n_slides > 1 else ""
    st.caption(
        f"**{words.plural(found.n_tiles, 'tile')}** from {frame.plain(found.name)}{size}, {um}. "
        f"Orange: the border of the tissue found.{more}"
    )


@st.cache_data(ttl=600, max_entries=8, show_spinner="Looking at the first slide…")
def _previewed(
    _app: App, project_id: int, path: str, settings: TileSettings
) -> SlidePreview | None:
    return slides.preview_slides(
        _app,
        project_id=project_id,
        path=Path(path),
        settings=settings,
        allowed_roots=_app.settings.import_roots,
    )


def has_slides(here: Here, project: ProjectView) -> bool:
    """Return whether the project has whole slides."""
    return slides.count_slides(here.app.store, project_id=project.id) > 0


def slides_section(here: Here, project: ProjectView) -> None:
    """Draw the slides of a project: picture, size, tiles, labels; and the way to their heat map."""
    found = slides.list_slides(here.app.store, project_id=project.id)
    if not found:
        st.caption("This project has no whole slides.")
        return
    n_tiles = sum(slide.n_tiles for slide in found)
    st.caption(
        f"{words.plural(len(found), 'slide')}, cut into {words.plural(n_tiles, 'tile')}. "
        "The label and macro pictures inside slide files are never read."
    )
    columns = st.columns(3, gap="medium")
    for at, slide in enumerate(found[:SHOWN]):
        with columns[at % 3], st.container(border=True, key=f"slide_{slide.id}"):
            _card(slide)
    if len(found) > SHOWN:
        st.caption(f"The first {SHOWN} of {len(found):,} slides.")


def _card(slide: SlideView) -> None:
    um = "µm/px unknown" if slide.um_per_px is None else f"{slide.um_per_px:.3g} µm/px"
    short = slide.name.rsplit("/", 1)[-1]
    st.html(
        f'<img src="/img/slide/{slide.id}?v={slide.sha256[:8]}" alt="{text(short)}" loading="lazy" '
        'style="width:100%;height:190px;object-fit:contain;border-radius:6px;background:#fff">'
        f'<div class="cns-ellipsis" title="{text(slide.name)}"><b>{text(short)}</b></div>'
        f'<div class="cns-sub">{slide.width:,} × {slide.height:,} px, {um}<br>'
        f"{words.plural(slide.n_tiles, 'tile')}, {slide.n_labelled:,} labelled<br>"
        f"{text(slide.settings.in_words)}</div>"
    )
    if not slide.complete:
        st.caption(":material/pending: Not cut to its end: import it again to go on.")
    with st.container(horizontal=True):
        st.button(
            "See its tiles",
            key=f"slide_tiles_{slide.id}",
            type="tertiary",
            on_click=_find,
            args=(slide.name + "/",),
        )
        if st.button("Heat map", key=f"slide_map_{slide.id}", type="tertiary"):
            frame.go_to("pages/predict.py", slide=slide.id)


def _find(part: str) -> None:
    """Look at the images whose names hold this part."""
    st.session_state.update({"images_tab": "Browse", "find": part})
