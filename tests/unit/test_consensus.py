"""Several readings of one image: a majority decides, and a doubt is never counted as a yes."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnsapp.domain.consensus import ConsensusRule, Decision, Vote, decide

VOTES = st.dictionaries(
    st.sampled_from(["Ada", "Ben", "Cleo", "Dan", "Eva"]),
    st.sampled_from([1, 2, 3, "skip", "unsure"]),
)
RULES = st.builds(ConsensusRule, st.just("majority"), st.integers(2, 4))
TWO = ConsensusRule("majority", 2)
THREE = ConsensusRule("majority", 3)


@pytest.mark.parametrize(
    ("votes", "rule", "decision"),
    [
        ({}, TWO, Decision("waiting", None, 0, False)),
        ({"Ada": 1}, TWO, Decision("waiting", None, 1, False)),
        ({"Ada": 1, "Ben": 1}, TWO, Decision("decided", 1, 2, False)),
        ({"Ada": 1, "Ben": 2}, TWO, Decision("undecided", None, 2, True)),
        ({"Ada": 1, "Ben": 2, "Cleo": 2}, TWO, Decision("decided", 2, 3, True)),
        ({"Ada": 1, "Ben": 1}, THREE, Decision("waiting", None, 2, False)),
        ({"Ada": 1, "Ben": 1, "Cleo": 2}, THREE, Decision("decided", 1, 3, True)),
        ({"Ada": 1, "Ben": 2, "Cleo": 3}, THREE, Decision("undecided", None, 3, True)),
        ({"Ada": 1, "Ben": "skip"}, TWO, Decision("waiting", None, 1, False)),
        ({"Ada": 1, "Ben": "unsure"}, TWO, Decision("undecided", None, 2, False)),
        ({"Ada": 1, "Ben": 1, "Cleo": "unsure"}, TWO, Decision("decided", 1, 3, False)),
        ({"Ada": "unsure", "Ben": "unsure"}, TWO, Decision("undecided", None, 2, False)),
        ({"Ada": "skip", "Ben": "skip"}, TWO, Decision("waiting", None, 0, False)),
        ({"Ada": 1, "Ben": 1, "Cleo": 2, "Dan": 2}, TWO, Decision("undecided", None, 4, True)),
    ],
)
def test_a_table_worked_by_hand(
    votes: dict[str, Vote], rule: ConsensusRule, decision: Decision
) -> None:
    assert decide(votes, rule) == decision


def test_by_latest_the_last_word_by_anyone_stands() -> None:
    rule = ConsensusRule()
    assert decide({}, rule) == Decision("waiting", None, 0, False)
    assert decide({"Ada": 1, "Ben": 2}, rule) == Decision("decided", 2, 2, True)
    assert decide({"Ben": 2, "Ada": 1}, rule) == Decision("decided", 1, 2, True)
    assert decide({"Ben": 2, "Ada": "skip"}, rule) == Decision("skip", None, 1, False)
    assert decide({"Ben": 2, "Ada": "unsure"}, rule) == Decision("unsure", None, 2, False)


@given(VOTES, RULES)
def test_a_class_is_given_exactly_when_it_is_decided(
    votes: dict[str, Vote], rule: ConsensusRule
) -> None:
    got = decide(votes, rule)
    assert (got.class_id is not None) == (got.state == "decided")
    readings = [vote for vote in votes.values() if vote != "skip"]
    assert got.n_votes == len(readings)
    assert (got.state == "waiting") == (len(readings) < rule.readers)
    if got.state == "decided":  # more readings name it than do not
        assert 2 * readings.count(got.class_id) > len(readings)
    elif got.state == "undecided":
        assert all(2 * readings.count(c) <= len(readings) for c in (1, 2, 3))


@given(st.lists(st.sampled_from([1, 2, "skip", "unsure"]), max_size=4), RULES)
def test_a_majority_does_not_depend_on_who_came_first(
    votes: list[Vote], rule: ConsensusRule
) -> None:
    named = [(f"annotator {i}", vote) for i, vote in enumerate(votes)]
    assert len({decide(dict(order), rule) for order in permutations(named)}) == 1


@given(VOTES, RULES)
def test_one_more_vote_for_what_was_decided_changes_nothing(
    votes: dict[str, Vote], rule: ConsensusRule
) -> None:
    before = decide(votes, rule)
    if before.class_id is not None:
        after = decide({**votes, "Zoe": before.class_id}, rule)
        assert (after.state, after.class_id) == ("decided", before.class_id)


@given(VOTES, st.one_of(RULES, st.just(ConsensusRule())))
def test_an_adjudicator_has_the_last_word_and_the_dispute_stays_on_record(
    votes: dict[str, Vote], rule: ConsensusRule
) -> None:
    plain, ruled = decide(votes, rule), decide(votes, rule, adjudicated=9)
    assert (ruled.state, ruled.class_id) == ("decided", 9)
    assert (ruled.n_votes, ruled.disputed) == (plain.n_votes, plain.disputed)


@pytest.mark.parametrize("vote", ["colon", True, None, 1.0])
def test_what_is_no_vote_is_refused(vote: object) -> None:
    with pytest.raises(ValueError, match="no class id, skip or unsure"):
        decide({"Ada": vote}, TWO)  # type: ignore[dict-item]


def test_a_rule_that_cannot_be_followed_is_refused() -> None:
    with pytest.raises(ValueError, match="1 readers cannot form a majority"):
        ConsensusRule("majority", 1)
    with pytest.raises(ValueError, match="neither latest nor majority"):
        ConsensusRule("loudest")  # type: ignore[arg-type]
