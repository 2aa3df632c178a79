"""Which kinds of map are offered for which network, what they can be told, and how they read."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnsapp.domain.backbones import FACTS, timm_facts
from cnsapp.domain.maps import (
    METHODS,
    check_offered,
    clean_settings,
    legend,
    offered,
    settings_sign,
    sign_of,
)
from cnsapp.errors import InvalidInputError

EVERYWHERE = {
    "gradcam", "hirescam", "integrated_gradients", "smoothgrad", "occlusion", "input_x_gradient",
}  # fmt: skip
GUIDED = {"guided_backprop", "guided_gradcam"}
ONCE = {"densenet121", "vgg16", "inception_v3", "small_cnn"}
RELU = {"resnet18", "resnet50", "densenet121", "vgg16", "inception_v3", "small_cnn"}


@pytest.mark.parametrize("name", list(FACTS))
def test_guided_maps_are_for_networks_of_relus_and_the_reason_is_said(name: str) -> None:
    found = offered(FACTS[name])
    given = {offer.method.id for offer in found if not offer.reason}
    assert given == EVERYWHERE | (GUIDED if name in RELU else set()) | (
        {"deeplift"} if name in ONCE else set()
    )
    assert [offer.method for offer in found] == list(METHODS)
    for offer in found:
        assert offer.reason == "" or (offer.reason.endswith(".") and offer.reason.count(".") == 1)


def test_the_table_of_the_docs_says_the_same() -> None:
    text = (Path(__file__).parents[2] / "docs" / "explaining.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `")]
    told = {row[0].strip().strip("`"): [cell.strip() for cell in row[1:]] for row in rows}
    for name, facts in FACTS.items():
        by_id = {o.method.id: "no" if o.reason else "yes" for o in offered(facts)}
        assert told[name][:4] == [
            "yes" if all(by_id[m] == "yes" for m in EVERYWHERE) else "no",
            by_id["guided_gradcam"], by_id["guided_backprop"], by_id["deeplift"],
        ]  # fmt: skip
    documented = {row[0].strip().strip("`") for row in rows} - set(FACTS)
    assert {m.id for m in METHODS} <= documented


def test_an_unknown_network_is_offered_guided_maps_only_after_a_look() -> None:
    facts = timm_facts("somenet")
    reasons = {o.method.id: o.reason for o in offered(facts)}
    assert "known after the model's first map" in reasons["guided_gradcam"]
    assert reasons["gradcam"] == ""
    after = {o.method.id: o.reason for o in offered(facts, "linear", True)}
    assert after["guided_gradcam"] == ""
    seen = {o.method.id: o.reason for o in offered(facts, "linear", False)}
    assert "other non-linearities than ReLU" in seen["guided_gradcam"]


def test_what_was_seen_counts_more_than_what_the_table_says() -> None:
    with pytest.raises(InvalidInputError, match="other non-linearities"):
        check_offered("guided_backprop", FACTS["resnet18"], "linear", False)
    with pytest.raises(InvalidInputError, match="hidden layer"):
        check_offered("guided_backprop", FACTS["resnet18"], "mlp", True)
    check_offered("guided_backprop", FACTS["resnet18"], "kernel", True)


def test_a_refusal_names_the_reason_and_what_is_offered() -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_offered("guided_gradcam", FACTS["vit_b_16"])
    assert "Guided Grad-CAM is not offered for this model" in caught.value.what
    assert "ViT-B/16 is a transformer" in caught.value.why
    assert "gradcam, hirescam, integrated_gradients" in caught.value.remedy
    with pytest.raises(InvalidInputError, match="one ReLU layer several times"):
        check_offered("deeplift", FACTS["resnet50"])
    with pytest.raises(InvalidInputError, match="weighs distances"):
        check_offered("deeplift", FACTS["small_cnn"], "kernel")


def test_settings_are_filled_up_checked_and_read_from_text() -> None:
    assert clean_settings("integrated_gradients") == {
        "steps": 20, "baseline": "gray", "show": "positive",
    }  # fmt: skip
    assert clean_settings("integrated_gradients", {"steps": "50"})["steps"] == 50
    assert clean_settings("smoothgrad", {"noise": "0.2"}) == {"samples": 16, "noise": 0.2}
    assert clean_settings("guided_backprop") == {}


@pytest.mark.parametrize(
    ("method", "given", "words"),
    [
        ("integrated_gradients", {"steps": 1}, "a whole number from 2 to 200"),
        ("integrated_gradients", {"steps": 2.5}, "a whole number from 2 to 200"),
        ("integrated_gradients", {"steps": "many"}, "“many” is no value of the setting steps"),
        ("integrated_gradients", {"baseline": "pink"}, "gray, white, black, blur"),
        ("smoothgrad", {"noise": float("nan")}, "a number from 0.01 to 1"),
        ("smoothgrad", {"show": "signed"}, "has no setting “show”"),
        ("guided_backprop", {"steps": 3}, "It has: none"),
        ("occlusion", {"window": None}, "“None” is no value"),
    ],
)
def test_settings_that_can_not_be_are_refused(
    method: str, given: dict[str, object], words: str
) -> None:
    with pytest.raises(InvalidInputError, match=words):
        clean_settings(method, given)


def test_every_default_is_a_value_that_its_setting_allows() -> None:
    for method in METHODS:
        given = {setting.name: setting.default for setting in method.settings}
        assert clean_settings(method.id, given) == clean_settings(method.id)


def test_the_sign_of_settings_does_not_depend_on_their_order() -> None:
    assert settings_sign({"a": 1, "b": "x"}) == settings_sign({"b": "x", "a": 1})
    assert settings_sign({"a": 1}) != settings_sign({"a": 2})


def test_the_legend_says_what_a_colour_means() -> None:
    assert sign_of("gradcam", {"show": "signed"}) == "signed"
    assert sign_of("smoothgrad", {}) == "magnitude"
    assert sign_of("gradcam", {}) == "positive"
    assert legend("signed", "kidney")["low"] == "speaks against kidney"
    assert legend("positive", "kidney") == {
        "low": "no evidence", "middle": "", "high": "most evidence for kidney",
    }  # fmt: skip
    assert "for or against" in legend("magnitude", "kidney")["high"]
