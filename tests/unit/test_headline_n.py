"""A score that nothing is known of is a dash with n = 0, never a dash alone."""

from __future__ import annotations

from cnsapp.ui.figures import _large


def test_an_undefined_score_is_shown_with_its_n() -> None:
    shown = _large("Balanced accuracy", {"balanced_accuracy": None, "n": 0, "head": "linear"})
    assert "n = 0, linear head" in shown and "0.0" not in shown
    assert "n = 1,200" in _large("Balanced accuracy", {"balanced_accuracy": 0.5, "n": 1200})
