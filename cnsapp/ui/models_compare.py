"""Compare models: is one better, by how much, and on which images do they part."""

from __future__ import annotations

from typing import cast

import plotly.graph_objects as go
import streamlit as st

from cnsapp.domain.compare import Pair
from cnsapp.services import comparing, models
from cnsapp.services.comparing import Comparison, Judged, Which
from cnsapp.services.comparing_words import Part, in_words, shown_p, signed
from cnsapp.services.models import ModelView
from cnsapp.services.projects import ProjectView
from cnsapp.services.split_uses import looks_so_far
from cnsapp.ui import frame, words
from cnsapp.ui.charts import ACCENT
from cnsapp.ui.components import Tile, gallery, thumb_url
from cnsapp.ui.frame import Here
from cnsapp.ui.tables import Column, table, text

PARTS: dict[str, Part] = {"Held-out images": "fold", "Locked test set": "test"}
SHOWN = 60  # images of a gallery
MOST_DRAWN = 10  # pairs of a chart; the table has them all
GRAY = "#9AA8AB"


def draw(here: Here, project: ProjectView) -> None:
    """Draw the choice of models, then what the comparison shows."""
    found = models.list_models(here.app.store, project_id=project.id)
    if len(found) < 2:
        st.info("Comparing takes two models. Train another one, or take one out of the archive.")
        return
    by_id = {model.id: model for model in found}
    chosen = _choose(by_id)
    if len(chosen) < 2:
        st.caption("Choose two or more models. They are compared on the images that all judged.")
        return
    part: Part = "fold"
    if len(comparing.parts_in_common(here.app.store, model_ids=chosen)) > 1:
        picked = st.segmented_control(
            "Images", list(PARTS), key="compare_part", default="Held-out images", required=True,
            help="Looks at the locked test set are counted: choose by the held-out images.",
        )  # fmt: skip
        part = PARTS[picked or "Held-out images"]
    with frame.guard():
        comparison = comparing.compare_models(
            here.app.store, model_ids=chosen, part=part, project_id=project.id, who=here.annotator
        )
        if part == "test":
            for line in looks_so_far(here.app.store, [m.split_id for m in comparison.models])[1]:
                st.caption(f":material/lock: {line}")
        show(here, comparison)


def _choose(by_id: dict[int, ModelView]) -> list[int]:
    current = next((i for i, m in by_id.items() if m.is_current), None)
    names = models.told_apart(list(by_id.values()))
    usual = [i for i in (current, *by_id) if i is not None]
    return st.multiselect(
        "Models",
        list(by_id),
        default=list(dict.fromkeys(usual))[:2],
        format_func=lambda i: f"{names[i]} · {words.score(_score(by_id[i]))}",
        key="compare_models",
        max_selections=comparing.MOST_MODELS,
    )


def show(here: Here, comparison: Comparison) -> None:
    """Draw a comparison: the verdicts, the figures, what to know, and the images that part."""
    found = comparison.found
    groups = f" from {words.plural(found.n_groups, 'group')}" if found.n_groups else ""
    st.markdown(f"**{words.plural(found.n, 'image')}**{groups}, judged by all of them.")
    for pair in found.pairs if len(found.pairs) == 1 else ():
        icon = ":material/trending_up:" if pair.shown else ":material/drag_handle:"
        st.markdown(f"{icon} {frame.plain(in_words(comparison, pair))}")
    left, right = st.columns(2, gap="large")
    with left:
        _scores(comparison)
    with right:
        _differences(comparison)
    if len(found.pairs) > 1:
        _pairs(comparison)
    for line in comparison.notes:
        st.caption(f":material/info: {frame.plain(line)}")
    _images(here, comparison)


def _scores(comparison: Comparison) -> None:
    found = comparison.found
    table(
        [
            Column("Model"),
            Column("Balanced accuracy", number=True, help="On the images in common"),
            Column("95 % interval", number=True),
            Column("Accuracy", number=True),
        ],
        [
            [text(name), words.number(s, 3), words.interval(i) or words.NONE, words.number(a, 3)]
            for name, s, i, a in zip(
                comparison.names, found.scores, found.intervals, found.accuracies, strict=True
            )
        ],
    )


def _differences(comparison: Comparison) -> None:
    """Draw every pair's difference with its interval, beside the line of no difference."""
    pairs = [p for p in comparison.found.pairs if p.difference is not None]
    if not 0 < len(pairs) <= MOST_DRAWN:
        return
    names = [_title(comparison, pair) for pair in pairs]
    figure = go.Figure()
    for shown, color, name in ((True, ACCENT, "Difference shown"), (False, GRAY, "None shown")):
        mine = [(n, p) for n, p in zip(names, pairs, strict=True) if p.shown is shown]
        if not mine:
            continue
        figure.add_scatter(
            x=[p.difference for _, p in mine],
            y=[n for n, _ in mine],
            mode="markers",
            name=name,
            marker={"color": color, "size": 10},
            error_x={
                "type": "data",
                "array": [_reach(p, 1) for _, p in mine],
                "arrayminus": [_reach(p, 0) for _, p in mine],
                "color": color,
            },
            hovertemplate="%{y}: %{x:+.3f}<extra></extra>",
        )
    figure.add_vline(x=0, line={"color": GRAY, "dash": "dot", "width": 1})
    figure.update_layout(
        height=96 + 34 * len(pairs),
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        xaxis={"title": "Difference in balanced accuracy, 95 % interval", "tickformat": "+.2f"},
        yaxis={"autorange": "reversed", "automargin": True},
        showlegend=False,
    )
    st.plotly_chart(
        figure, key="compare_differences", config={"displayModeBar": False},
        alt="Differences in balanced accuracy with their intervals",
    )  # fmt: skip


def _pairs(comparison: Comparison) -> None:
    table(
        [
            Column("First"),
            Column("Second"),
            Column("Difference", number=True, help="First less second, balanced accuracy"),
            Column("95 % interval", number=True, help="Paired bootstrap, whole groups"),
            Column("p (Holm)", number=True, help="Corrected for all pairs"),
            Column("Only first right", number=True),
            Column("Only second right", number=True),
            Column("Same answer", number=True),
            Column("Verdict"),
        ],
        [_pair_row(comparison, pair) for pair in comparison.found.pairs],
    )


def _pair_row(comparison: Comparison, pair: Pair) -> list[str]:
    first, second = (comparison.names[k] for k in (pair.first, pair.second))
    verdict = "no difference shown"
    if pair.shown and pair.difference is not None:
        verdict = f"<b>{text(first if pair.difference > 0 else second)}</b> is better"
    return [
        text(first),
        text(second),
        words.NONE if pair.difference is None else signed(pair.difference),
        words.NONE if pair.interval is None else " to ".join(map(signed, pair.interval)),
        words.NONE if pair.p_holm is None else shown_p(pair.p_holm),
        words.number(pair.only_first),
        words.number(pair.only_second),
        words.percent(pair.agreement),
        verdict,
    ]


def _images(here: Here, comparison: Comparison) -> None:
    """Draw the images on which two models part, both directions, with how many there are."""
    pairs = comparison.found.pairs
    st.subheader("Where they part", anchor=False)
    with st.container(horizontal=True, vertical_alignment="bottom", key="compare_images_top"):
        number = 0
        if len(pairs) > 1:
            number = st.selectbox(
                "Pair",
                range(len(pairs)),
                format_func=lambda k: _title(comparison, pairs[k]),
                key="compare_pair",
                width=360,
            )
        pair = pairs[number]
        first, second = comparison.models[pair.first], comparison.models[pair.second]
        one, two = comparison.names[pair.first], comparison.names[pair.second]
        counts: dict[str, int] = {
            "only_first": pair.only_first, "only_second": pair.only_second, "neither": pair.neither,
        }  # fmt: skip
        said: dict[str, str] = {
            "only_first": f"Only {one} right", "only_second": f"Only {two} right",
            "neither": "Neither right",
        }  # fmt: skip
        usual = next((which for which, n in counts.items() if n), "only_first")
        picked = st.segmented_control(
            "Images on which", list(counts), key="compare_which", default=usual, required=True,
            format_func=lambda which: f"{said[which]} ({counts[which]:,})",
        )  # fmt: skip
    which = cast(Which, picked or usual)
    n = counts[which]
    if not n:
        st.caption("There is no such image.")
        return
    items = comparing.images_apart(
        here.app.store, comparison, first=pair.first, second=pair.second, which=which, limit=SHOWN
    )
    names = {c.class_id: c.name for c in comparison.classes}
    colors = {c.class_id: c.color for c in comparison.classes}
    opened = gallery(
        [_tile(item, names, colors, (one, two)) for item in items],
        key=f"compare_gallery_{first.id}_{second.id}_{which}",
    )
    more = f" The {SHOWN} of which the wrong one was surest." if n > SHOWN else ""
    st.caption(f"{words.plural(n, 'image')}.{more} A click opens an image on the Explain page.")
    if opened is not None:
        asked = second if which == "only_first" else first
        frame.go_to("pages/explain.py", model=asked.id, image=opened)


def _tile(
    judged: Judged, names: dict[int, str], colors: dict[int, str], who: tuple[str, str]
) -> Tile:
    first = f"{who[0]}: {names.get(judged.first_id, 'another class')} {judged.first_sure:.2f}"
    second = f"{who[1]}: {names.get(judged.second_id, 'another class')} {judged.second_sure:.2f}"
    item = judged.item
    return Tile(
        id=item.id,
        url=thumb_url(item.id, item.version),
        name=item.name,
        label=names.get(judged.label_id, ""),
        color=colors.get(judged.label_id, GRAY),
        note=f"{first} · {second}",
    )


def _title(comparison: Comparison, pair: Pair) -> str:
    return f"{comparison.names[pair.first]} – {comparison.names[pair.second]}"


def _reach(pair: Pair, side: int) -> float:
    if pair.interval is None or pair.difference is None:
        return 0.0
    low, high = pair.interval
    return max(0.0, high - pair.difference if side else pair.difference - low)


def _score(model: ModelView) -> float | None:
    value = model.metrics.get("balanced_accuracy")
    return float(value) if isinstance(value, int | float) else None
