"""Review, one class: what the model looks at, as maps of typical images and as their average."""

from __future__ import annotations

import streamlit as st

from cnsapp.domain.average_maps import AverageMap, Share
from cnsapp.domain.map_methods import DEFAULT_METHOD
from cnsapp.domain.maps import get_method
from cnsapp.errors import CnsError
from cnsapp.services import average_maps
from cnsapp.services.average_maps import ClassMaps, OneMap
from cnsapp.services.typical import ClassGallery
from cnsapp.ui import frame, words
from cnsapp.ui.review_asked import Reviewed
from cnsapp.ui.review_by_class_sheet import Cell, cells, embedded, scale, section, sheet
from cnsapp.ui.tables import text

HONEST = (
    "An average means something only where all images have one frame, such as a lesion that is "
    "always in the middle: then the average picture is sharp. Tissue tiles have no common frame; "
    "for them read the single maps, and of the average only the two shares."
)
BORDER_MORE = (
    "More than the border's area would give: look there for frames, scale bars, dark corners or "
    "the edge of the glass. The model may have learnt those."
)
BORDER_LESS = (
    "Less than the border's area would give, as is usual: no sign that frames or corners are read."
)
BORDER_SAME = "No lean to the border is shown."
BORDER_FEW = "Too few groups for an interval: nothing can be said of other images."


def draw(asked: Reviewed, found: ClassGallery) -> None:
    """Draw the maps of a class's typical images, or offer to make them."""
    image_ids = [shown.image.id for shown in found.typical]
    try:
        maps = average_maps.class_maps(
            asked.here.app, model_id=asked.model.id, class_id=found.class_id, image_ids=image_ids
        )
    except CnsError as error:
        sheet(section(_title(found), text(str(error))))
        return
    sheet(section(_title(found), _said(maps, found)), *_shown(asked, maps))
    _make(asked, found, maps, image_ids)


def _title(found: ClassGallery) -> str:
    return f"What it looks at in {text(found.name)}"


def _said(maps: ClassMaps, found: ClassGallery) -> str:
    n = len(maps.ready)
    if not n:
        return (
            f"No map of its {len(maps.maps)} most typical images was made yet. A map shows which "
            "places of an image speak for the class."
        )
    of = "" if n == len(maps.maps) else f" of {len(maps.maps)}"
    empty = sum(one.is_empty for one in maps.ready)
    none = f" In {empty} nothing speaks for it." if empty else ""
    return (
        f"{get_method(maps.method).title} of {n}{of} most typical images: the brighter, the more "
        f"speaks for {text(found.name)}. Each map has its own scale.{none}"
    )


def _shown(asked: Reviewed, maps: ClassMaps) -> list[str]:
    if not maps.ready:
        return []
    parts = [cells(asked, [_cell(one) for one in maps.ready])]
    if maps.average is not None:
        parts.append(_average(asked, maps, maps.average))
    return parts


def _cell(one: OneMap) -> Cell:
    return Cell(
        one.image,
        "nothing speaks for it" if one.is_empty else "",
        str((one.facts or {}).get("note") or ""),
        f"/img/map/{one.key}",
    )


def _average(asked: Reviewed, maps: ClassMaps, average: AverageMap) -> str:
    """Return the average map and picture with the shares beside them, and how far to trust them."""
    legend = (maps.ready[0].facts or {}).get("legend", {})
    png = embedded(average_maps.as_png(average.mean, legend["colours"]))
    used = [one.image for one in maps.ready if not one.is_empty]
    mean = average_maps.average_picture(asked.here.app, used)
    picture = "" if mean is None else (
        f'<figure><img src="{embedded(average_maps.picture_png(mean))}" alt="Average picture">'
        f"<figcaption>Average picture of the same {average.n} images</figcaption></figure>"
    )  # fmt: skip
    shares = _shares(average, by_group=any(one.group for one in used))
    squeezed = "" if maps.are_alike else " The images differ in shape and were brought to a square."
    return (
        f'<div class="cns-average"><figure><img src="{png}" alt="Average map">{scale(legend)}'
        f"<figcaption>Average map, n = {average.n}. From nothing to {average.mean.max():.1f} × an "
        f"even map</figcaption></figure>{picture or '<div></div>'}"
        f"<div>{shares}<p>{text(_verdict(average.border))}</p>"
        f'<p class="cns-small cns-muted">{text(HONEST + squeezed)}</p></div></div>'
    )


def _shares(average: AverageMap, *, by_group: bool) -> str:
    units = words.plural(average.n, "map")
    if by_group:
        units += f", {words.plural(average.n_units, 'group')}"
    rows = "".join(
        f"<tr><td>{name}</td>"
        f'<td class="num">{words.figure(share.value, share.interval)}</td>'
        f'<td class="num">{share.area:.2f}</td></tr>'
        for name, share in (
            ("At the border (outer tenth of each side)", average.border),
            ("In the middle (half of each side)", average.middle),
        )
    )
    return (
        '<table class="cns"><thead><tr><th scope="col">Share of the maps</th>'
        f'<th scope="col" class="num">Mean (95 % interval), {units}</th>'
        '<th scope="col" class="num">By area alone</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _verdict(border: Share) -> str:
    said = {"more": BORDER_MORE, "less": BORDER_LESS, "no difference": BORDER_SAME}
    return said.get(border.verdict, BORDER_FEW)


def _make(asked: Reviewed, found: ClassGallery, maps: ClassMaps, image_ids: list[int]) -> None:
    """Offer to make the maps that lack; show how far they are, with a way to stop."""
    lack = len(maps.maps) - len(maps.ready)
    if not lack:
        return
    if maps.job is not None and maps.job.is_active:
        with st.container(border=True, key="class_maps_job"):
            frame.job_progress(maps.job.id)
        return
    if maps.job is not None:
        frame.job_progress(maps.job.id)  # says how it ended
    st.button(
        f"Make {words.plural(lack, 'map')}", key="class_make", type="primary", on_click=_ask,
        args=(asked, found.class_id, image_ids),
        help="In the background, a fraction of a second each; they are kept.",
    )  # fmt: skip


def _ask(asked: Reviewed, class_id: int, image_ids: list[int]) -> None:
    with frame.guard():
        average_maps.make_class_maps(
            asked.here.app, model_id=asked.model.id, class_id=class_id, image_ids=image_ids,
            method=DEFAULT_METHOD, requested_by=asked.here.annotator,
        )  # fmt: skip
