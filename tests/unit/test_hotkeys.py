"""Class keys: no press may mean two things, and a refusal names the culprits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnsapp.domain.hotkeys import (
    RESERVED,
    SECOND_KEYS,
    check_hotkeys,
    clean_hotkey,
    find_conflict,
    free_keys,
    parse_chord,
    suggest_chords,
    suggest_hotkeys,
)
from cnsapp.domain.schemes import HOTKEYS, ORGAN_SYSTEMS, ClassSpec
from cnsapp.errors import InvalidInputError


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("d", ("d",)),
        ("D", ("d",)),
        ("7", ("7",)),
        ("d1", ("d", "1")),
        (" D 1 ", ("d", "1")),
        ("d, 1", ("d", "1")),
        ("d-1", ("d", "1")),
        ("d then 1", ("d", "1")),
        ("dd", ("d", "d")),
        ("ö", ("ö",)),
        ("o\u0308", ("ö",)),
    ],
)
def test_a_key_or_a_chord_is_read_however_it_is_written(text: str, keys: tuple[str, ...]) -> None:
    assert parse_chord(text) == keys
    assert clean_hotkey(clean_hotkey(text)) == "".join(keys)


@pytest.mark.parametrize("key", sorted(RESERVED))
def test_a_reserved_key_is_refused_with_what_it_does(key: str) -> None:
    with pytest.raises(InvalidInputError, match="is reserved: ") as caught:
        parse_chord(key.title())
    assert RESERVED[key] in caught.value.what


@pytest.mark.parametrize("text", ["cd", "dc", "1u", "d?"])
def test_a_reserved_key_is_refused_in_a_chord_too(text: str) -> None:
    with pytest.raises(InvalidInputError, match="is reserved"):
        parse_chord(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "No key is given"),
        ("  ", "No key is given"),
        ("abc", "“abc” is 3 keys"),
        (".", "“.” cannot be the key of a class"),
        ("d!", "“!” cannot be the key of a class"),
        ("F1 then F2", "is 4 keys"),
        ("²", "“²” cannot be the key of a class"),
    ],
)
def test_what_is_no_key_is_refused_in_words(text: str, said: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_chord(text)
    assert said in caught.value.what


def test_two_classes_with_one_key_are_both_named() -> None:
    with pytest.raises(InvalidInputError, match="“liver” and “lung” both have the key d"):
        check_hotkeys({"liver": "d", "colon": "1", "lung": "D"})


@pytest.mark.parametrize("keys", [{"liver": "d", "lung": "d1"}, {"liver": "d1", "lung": "d"}])
def test_a_key_that_begins_the_chord_of_another_class_is_refused(keys: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError, match="one begins the other") as caught:
        check_hotkeys(keys)
    assert "“liver” has the key" in caught.value.what and "“lung” the key" in caught.value.what


def test_a_bad_key_names_its_class() -> None:
    with pytest.raises(InvalidInputError, match="The key of “colon” cannot be used: “u” is res"):
        check_hotkeys({"liver": "d", "colon": "u"})


def test_keys_that_go_together_come_back_as_they_are_stored() -> None:
    given_keys = {"liver": "D 1", "lung": "d2", "colon": "1", "skin": None, "bone": ""}
    assert check_hotkeys(given_keys) == {
        "liver": "d1", "lung": "d2", "colon": "1", "skin": None, "bone": None,
    }  # fmt: skip


KEY = st.sampled_from(["b", "d", "e", "1", "2"])


@given(st.lists(st.one_of(KEY, st.tuples(KEY, KEY).map("".join)), max_size=7))
def test_a_conflict_is_found_exactly_when_some_press_could_mean_two_classes(
    keys: list[str],
) -> None:
    ambiguous = any(
        keys[i].startswith(keys[j]) for i in range(len(keys)) for j in range(len(keys)) if i != j
    )
    found = find_conflict({f"class {i}": key for i, key in enumerate(keys)})
    assert (found is not None) == ambiguous
    if found:
        a, b = (keys[int(name.split()[1])] for name in found)
        assert a.startswith(b) or b.startswith(a)


def test_the_organ_scheme_gets_its_systems_initials() -> None:
    chords = suggest_chords(ORGAN_SYSTEMS)
    names = [spec.name for spec in ORGAN_SYSTEMS]
    by_name = dict(zip(names, chords, strict=True))
    assert by_name["colon"] == "d1" and by_name["pancreas"] == "d4"
    assert by_name["spleen"] == "l1" and by_name["lymph_node"] == "l2"
    assert by_name["kidney"] == "y1"  # all else of “urinary” is reserved
    assert len(set(chords)) == len(names)


@given(
    st.lists(
        st.sampled_from([None, "digestive", "Digestive", "urinary", "dermal", "r", "Ωmega", "7"]),
        max_size=60,
    )
)
def test_suggested_keys_never_conflict_and_are_never_refused(parents: list[str | None]) -> None:
    specs = [ClassSpec(f"class {i}", parent) for i, parent in enumerate(parents)]
    for suggested in (suggest_chords(specs), suggest_hotkeys(specs)):
        keys = {spec.name: key for spec, key in zip(specs, suggested, strict=True)}
        assert check_hotkeys(keys) == keys
    for spec, key in zip(specs, suggest_chords(specs), strict=True):
        assert key is None or len(key) == (2 if spec.parent else 1)


def test_a_system_larger_than_the_second_keys_leaves_the_rest_without() -> None:
    n = len(SECOND_KEYS)
    chords = suggest_chords([ClassSpec(f"c{i}", "lung") for i in range(n + 2)])
    assert chords[:2] == ["l1", "l2"] and chords[9] == f"l{SECOND_KEYS[9]}"
    assert None not in chords[:n] and chords[n:] == [None, None]


def test_few_classes_keep_single_keys() -> None:
    assert suggest_hotkeys(ORGAN_SYSTEMS[:10]) == list("1234567890")
    assert suggest_hotkeys(ORGAN_SYSTEMS)[0] == "d1"
    flat = [ClassSpec(f"c{i}") for i in range(len(HOTKEYS))]
    assert suggest_hotkeys(flat) == list(HOTKEYS)


def test_no_default_key_is_reserved() -> None:
    assert not set(HOTKEYS) & set(RESERVED)
    assert len(set(HOTKEYS)) == len(HOTKEYS)


@given(st.lists(st.sampled_from([None, "1", "d1", "d2", "e", "q5"]), max_size=5))
def test_free_keys_go_with_those_there_are(taken: list[str | None]) -> None:
    there = [key for key in dict.fromkeys(taken) if key]
    for key in free_keys(taken):
        assert find_conflict({"new": key, **{f"c{k}": k for k in there}}) is None


def test_many_classes_without_parents_leave_the_systems_letters_alone() -> None:
    specs = [ClassSpec("colon", "digestive"), *(ClassSpec(f"c{i}") for i in range(30))]
    keys = suggest_chords(specs)
    assert keys[:4] == ["d1", "1", "2", "3"] and keys[10:13] == ["0", "b", "e"]
    assert check_hotkeys(dict(zip((s.name for s in specs), keys, strict=True)))


def test_sixty_classes_without_groups_get_two_keys_each() -> None:
    keys = suggest_hotkeys([ClassSpec(f"class {i}") for i in range(60)])
    assert keys[:10] == ["11", "12", "13", "14", "15", "16", "17", "18", "19", "21"]
    assert None not in keys
    assert len(set(keys)) == 60
    assert find_conflict({str(i): key for i, key in enumerate(keys)}) is None
