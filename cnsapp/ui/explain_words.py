"""What is said beside a map: how it is read, and how far it is to be trusted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cnsapp.domain.maps import MAGNITUDE, SIGNED, get_method
from cnsapp.ui import words
from cnsapp.ui.explain_overlay import Line, Panel

UNITS = {  # of the largest value; other methods have none that a reader could use
    "gradcam": "logits a cell of the network’s map, by the mean gradient",
    "hirescam": "logits a cell of the network’s map",
    "integrated_gradients": "logits a pixel of the network’s input",
    "deeplift": "logits a pixel of the network’s input",
    "input_x_gradient": "logits a pixel of the network’s input",
    "occlusion": "logits lost where a window covers the place",
}
EMPTY, RANDOM, NO_MODEL = "Empty map", "No better than random", "Does not depend on the model"


def waiting(title: str, method: str, settings: Mapping[str, Any], note: str) -> Panel:
    """Return the panel of a map that is not there (yet)."""
    return Panel(title=title, method=method_words(method, settings), note=note)


def panel_of(title: str, key: str, facts: Mapping[str, Any], checking: str) -> Panel:
    """Return the panel of a map that is there.

    Parameters
    ----------
    checking
        What is said in place of checks that are not there: being measured, not asked for, failed.
    """
    sign, legend = str(facts["sign"]), facts["legend"]
    top = value(float(facts["scale"]))
    ends = {SIGNED: (f"−{top}", "0", f"+{top}")}.get(sign, ("0", "", top))
    chance = facts.get("probability")
    return Panel(
        title=title,
        method=method_words(str(facts["method"]), facts["settings"]),
        note=f"{words.percent(float(chance), 1)} by the final model" if chance is not None else "",
        levels_url=f"/img/map/{key}-levels",
        sign=sign,
        low=f"{ends[0]} {legend['low']}",
        middle=f"{ends[1]} {legend['middle']}".strip(),
        high=f"{ends[2]} {legend['high']}" if facts["scale"] else "",
        legend=how_read(facts),
        mark=mark_of(facts),
        lines=lines_of(facts, checking),
        curves=curves_of(facts.get("faithfulness")),
    )


def value(number: float) -> str:
    """Return a number of a scale with two digits that count."""
    return f"{number:.2g}" if number else "0"


def method_words(method: str, settings: Mapping[str, Any]) -> str:
    """Return a method and its settings as a figure names them."""
    known = get_method(method)
    parts = []
    for one in known.settings:
        if one.name == "show":
            continue  # the legend says it
        given = settings.get(one.name, one.default)
        parts.append(f"{one.title.lower()} {given if given != 0 else 'by size'}")
    return f"{known.title} ({', '.join(parts)})" if parts else known.title


def how_read(facts: Mapping[str, Any]) -> str:
    """Return what the colours of a map mean, with the unit where there is one."""
    sign = str(facts["sign"])
    kind = {
        SIGNED: "Signed: for and against the class.",
        MAGNITUDE: "Without a sign: how much depends on a place, for or against.",
    }.get(sign, "Positive: only what speaks for the class.")
    unit = UNITS.get(str(facts["method"]))
    return f"{kind} Values are {unit}." if unit and facts["scale"] else kind


def mark_of(facts: Mapping[str, Any]) -> str:
    """Return the words that stand on a map that must not be believed, or nothing."""
    if facts.get("empty") or facts.get("scale") == 0:
        return EMPTY
    faithful, random = facts.get("faithfulness"), facts.get("randomisation")
    if faithful is not None and not faithful["beats_random"]:
        return RANDOM
    if random is not None and random["depends_on_model"] is False:
        return NO_MODEL
    return ""


def lines_of(facts: Mapping[str, Any], checking: str) -> list[Line]:
    """Return how far a map is to be trusted, in sentences."""
    lines = [Line("warn", str(note)) for note in facts.get("notes") or []]
    lines += _complete(facts.get("completeness"))
    faithful, random = facts.get("faithfulness"), facts.get("randomisation")
    if faithful is not None:
        tone = "good" if faithful["beats_random"] else "warn"
        lines.append(Line(tone, _minus(str(faithful["verdict"]))))
    if random is not None:
        depends = random["depends_on_model"]
        tone = "plain" if depends is None else "good" if depends else "warn"
        lines.append(Line(tone, _minus(f"Random weights. {random['verdict']}")))
    if (faithful is None or random is None) and checking:
        lines.append(Line("wait", checking))
    return lines


def _minus(text: str) -> str:
    """Return a sentence whose numbers below zero have a minus sign and no hyphen."""
    return re.sub(r"(?<![\w.])-(?=\d)", "−", text)


def _complete(found: Mapping[str, Any] | None) -> list[Line]:
    if found is None:
        return []
    change, share = float(found["change"]), float(found["share"])
    return [
        Line(
            "good" if share <= 0.1 else "warn",
            f"Completeness: the parts add up to the change of the answer ({change:+.2f} logits) "
            f"but for {share:.1%} of it ({abs(float(found['error'])):.2g}).",
        )
    ]


def curves_of(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the curves of a chart, and what they show in words."""
    if found is None:
        return None
    names = ("shares", "insertion", "deletion", "random_insertion", "random_deletion")
    said = (
        "Probability of the class against the share of cells. With the strongest cells put in: "
        f"area {found['insertion_area']:.2f}; with them taken away: area "
        f"{found['deletion_area']:.2f}."
    )
    limit = float(found["random_limit"])
    chance = f"random maps (90 %: {-limit:+.2f} to {limit:+.2f})"
    return {name: found[name] for name in names} | {"said": said, "chance": _minus(chance)}
