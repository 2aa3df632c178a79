"""What several readings of one image come to: hand-worked cases, and rules that always hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnsapp.domain.consensus import ConsensusRule, Vote, decide
from cnsapp.errors import InvalidInputError

LATEST = ConsensusRule()
TWO = ConsensusRule("majority", 2)
THREE = ConsensusRule("majority", 3)


def votes(*said: int | str) -> list[Vote]:
    """Return one vote a person, in the order of time: a class, or a word, or "7!" to adjudicate."""
    made = []
    for at, word in enumerate(said):
        judge = isinstance(word, str) and word.endswith("!")
        class_id = int(word.removesuffix("!")) if judge else word if isinstance(word, int) else None
        state = "label" if class_id is not None else word
        made.append(Vote(f"person {at}", state, class_id, at + 1, adjudicates=judge))  # type: ignore[arg-type]
    return made


@pytest.mark.parametrize(
    ("said", "rule", "state", "class_id", "readers", "disputed"),
    [
        ((), LATEST, "none", None, 0, False),
        ((), TWO, "none", None, 0, False),
        ((1, 2), LATEST, "label", 2, 2, True),
        ((1, "skip"), LATEST, "skip", None, 1, False),
        ((1, "clear"), LATEST, "none", None, 1, False),
        ((1,), TWO, "waiting", None, 1, False),
        ((1, "skip"), TWO, "waiting", None, 1, False),
        ((1, "clear"), TWO, "waiting", None, 1, False),
        ((1, 1), TWO, "label", 1, 2, False),
        ((1, 2), TWO, "undecided", None, 2, True),
        ((1, "unsure"), TWO, "undecided", None, 1, False),
        ((1, 1, "unsure"), TWO, "label", 1, 2, False),
        (("unsure", "skip"), TWO, "skip", None, 0, False),
        ((1, 2), THREE, "waiting", None, 2, True),
        ((1, 2, 1), THREE, "label", 1, 3, True),
        ((1, 2, 3), THREE, "undecided", None, 3, True),
        ((1, 1, 2, 2), THREE, "undecided", None, 4, True),
        ((1, "2!", 1), TWO, "label", 2, 3, True),
        (("2!",), THREE, "label", 2, 1, False),
    ],
)
def test_hand_worked_cases(said, rule, state, class_id, readers, disputed) -> None:  # type: ignore[no-untyped-def]
    found = decide(votes(*said), rule)
    assert (found.state, found.class_id, found.readers, found.disputed) == (
        state, class_id, readers, disputed,
    )  # fmt: skip


WORDS = st.lists(st.sampled_from([1, 2, 3, "skip", "unsure", "clear"]), max_size=8)


@given(WORDS, st.integers(2, 5), st.randoms())
def test_a_count_does_not_ask_who_came_first(said, readers, random) -> None:  # type: ignore[no-untyped-def]
    rule = ConsensusRule("majority", readers)
    here = votes(*said)
    mixed = here[:]
    random.shuffle(mixed)
    assert decide(here, rule) == decide(mixed, rule)


@given(WORDS, st.integers(2, 5))
def test_a_label_by_majority_has_more_than_half_of_the_readings(said, readers) -> None:  # type: ignore[no-untyped-def]
    found = decide(votes(*said), ConsensusRule("majority", readers))
    counted = [word for word in said if word in (1, 2, 3, "unsure")]
    if found.state == "label":
        assert len(counted) >= readers
        assert counted.count(found.class_id) * 2 > len(counted)
    if found.state == "waiting":
        assert len(counted) < readers


def test_the_rule_goes_round_and_refuses_a_vote_of_one() -> None:
    assert ConsensusRule.from_json(None) == LATEST
    assert ConsensusRule.from_json(THREE.as_json()) == THREE
    with pytest.raises(InvalidInputError, match="at least two"):
        ConsensusRule("majority", 1)
    with pytest.raises(InvalidInputError, match="no label rule"):
        ConsensusRule("loudest")  # type: ignore[arg-type]
