"""Class schemes go out and come back unchanged; what would be misread is refused with its line."""

from __future__ import annotations

import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnsapp.domain.hotkeys import suggest_hotkeys
from cnsapp.domain.names import clean_name, name_key
from cnsapp.domain.scheme_files import (
    FORMAT,
    LARGEST,
    MOST_CLASSES,
    read_scheme,
    write_csv,
    write_json,
)
from cnsapp.domain.schemes import (
    COLORS,
    HOTKEYS,
    MORE_COLORS,
    ORGAN_SYSTEMS,
    ClassSpec,
    clean_color,
    color_for,
    is_color,
    luminance,
    text_color,
)
from cnsapp.errors import InvalidInputError

NAME = st.text(min_size=1, max_size=30).map(clean_name).filter(lambda s: s and s.isprintable())
NAMES = st.lists(
    st.one_of(NAME, st.from_regex(r"'*[=+@-][a-z]{0,3}", fullmatch=True)).map(clean_name)
)
TEXT = st.text(st.characters(exclude_categories=["C", "Zl", "Zp", "Zs"]), max_size=20)


@st.composite
def schemes(draw: st.DrawFn) -> list[ClassSpec]:
    """Draw classes that a project could hold."""
    names = {name_key(n): n for n in draw(NAMES.filter(bool)) if name_key(n)}
    parents = {name_key(n): n for n in draw(st.lists(NAME, max_size=3)) if name_key(n)}
    keys = draw(st.permutations([*HOTKEYS[:8], *(HOTKEYS[9] + k for k in HOTKEYS[:8])]))
    description = st.lists(TEXT, max_size=3).map("\n".join).map(str.strip)
    return [
        ClassSpec(
            name,
            draw(st.sampled_from([None, *parents.values()])),
            draw(st.sampled_from([None, *COLORS])),
            draw(st.sampled_from([None, keys[i]])) if i < len(keys) else None,
            unicodedata.normalize("NFC", draw(description)).strip(),
        )
        for i, name in enumerate(names.values())
    ]


@given(schemes().filter(bool))
def test_what_is_written_is_read_back(classes: list[ClassSpec]) -> None:
    assert list(read_scheme(write_csv(classes)).classes) == classes
    again = read_scheme(write_json(classes, "Tissues of the lab"))
    assert list(again.classes) == classes
    assert (again.name, again.ignored) == ("Tissues of the lab", ())


def test_a_spreadsheet_never_runs_a_name_as_a_formula() -> None:
    names = ["=1+1", "+a", "-b", "@c", "'=d", "'e"]
    written = write_csv([ClassSpec(name) for name in names]).decode("utf-8-sig")
    cells = [line.split(",")[0] for line in written.splitlines()[1:]]
    assert cells == ["'=1+1", "'+a", "'-b", "'@c", "''=d", "'e"]


def test_the_built_in_scheme_makes_the_journey() -> None:
    assert read_scheme(write_csv(ORGAN_SYSTEMS)).classes == ORGAN_SYSTEMS
    whole = json.loads(write_json(ORGAN_SYSTEMS))
    assert (whole["format"], whole["version"]) == (FORMAT, 1)
    assert whole["classes"][0] == {"name": "colon", "parent": "digestive"}


TABLE = """name;parent;color;key;description
Niere;Harnwege;#0072b2;N1;Rinde, nicht Mark
Gefäß;;07b;2;
"""
EXPECTED = (
    ClassSpec("Niere", "Harnwege", "#0072B2", "d1", "Rinde, nicht Mark"),
    ClassSpec("Gefäß", None, "#0077BB", "2", ""),
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_way_a_spreadsheet_saves_it_is_read(
    encoding: str, separator: str, newline: str
) -> None:
    text = TABLE.replace("N1", "D 1").replace(";", separator).replace("\n", newline)
    assert read_scheme(text.encode(encoding)).classes == EXPECTED


def test_commas_with_quotes_a_line_of_excels_and_blank_lines() -> None:
    text = 'sep=,\r\n\r\nName,Colour,HOTKEY,Notes\r\n\r\n"a, b",#112233,q,x\r\n,,,\r\nc,,,\r\n'
    scheme = read_scheme(text.encode())
    assert scheme.classes == (ClassSpec("a, b", None, "#112233", "q"), ClassSpec("c"))
    assert scheme.ignored == ("Notes",)


def said(text: str | bytes, file_name: str = "organs.csv") -> str:
    """Return the sentence with which a file is refused."""
    with pytest.raises(InvalidInputError) as caught:
        read_scheme(text.encode() if isinstance(text, str) else text, file_name)
    return str(caught.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Liver", "liver"),
        ("lymph node", "lymph  node"),
        ("é", "e\u0301"),
        ("a", "a"),
        ("ﬁbre", "fibre"),
    ],
)
def test_names_that_read_alike_are_refused_with_both_lines(one: str, other: str) -> None:
    sentence = said(f"name\n{one}\n\nlung\n{other}\n")
    assert "(line 2)" in sentence and "(line 5) are the same class name" in sentence


def test_lines_are_counted_as_the_file_has_them_even_after_a_cell_of_two_lines() -> None:
    sentence = said('name,description\na,"one\ntwo"\nb,\nA,\n')
    assert "“a” (line 2) and “A” (line 5)" in sentence


def test_json_names_the_two_classes_by_their_number() -> None:
    raw = json.dumps(
        {"format": FORMAT, "version": 1, "classes": [{"name": "a"}, {"name": "b"}, {"name": "A "}]}
    )
    assert "“a” (class 1) and “A” (class 3)" in said(raw, "x.json")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "names no class"),
        ("name\n", "names no class"),
        ("organ\nliver\n", "no column “name” in line 1"),
        ("name,name\na,b\n", "has the column “name” twice"),
        ("name,colour,color\na,,\n", "has the column “color” twice"),
        ("name,color\nliver,blue\n", "“liver” (line 2): “blue” is not a colour."),
        ("name,color\nliver,#12345\n", "“#12345” is not a colour."),
        ("name,key\nliver,u\n", "“liver” (line 2): “u” is reserved: it undoes"),
        ("name,key\nliver,abc\n", "“abc” is 3 keys"),
        ("name,key\na,1\nb,1\n", "“a” (line 2) has the key 1 and “b” (line 3) the key 1"),
        ("name,key\na,d\nb,d2\n", "“a” (line 2) has the key d and “b” (line 3) the key d2"),
        ("name,parent\n,x\n", "The class in line 2 has no name"),
        ("name,parent\na,X\nb,x\n", "parents “X” (line 2) and “x” (line 3) differ only"),
        ("name,parent\na,b,c\n", "Line 2 of organs.csv has 3 cells, the head 2"),
        ('name\n"a\n', "not a proper CSV table"),
        ("name\n" + "x" * 201, "has 201 characters; 200 is the most"),
        ("name\na\u200bb\n", "holds characters that cannot be seen"),
        ("name,description\na," + "x" * 2001, "has 2,001 characters; 2,000 is the most"),
        ("name\n" + "\n".join(f"c{i}" for i in range(MOST_CLASSES + 1)), "2,000 is the most"),
        (b"name\n\x00\x01", "is not a text file"),
        (b"\xff\xd8\xff\xe0\x81\x00", "is not a text file"),
        (b"x" * (LARGEST + 1), "1,000,001 bytes"),
        ("[]", "its format is not"),
        ('{"format": "other"}', "its format is not"),
        ("{", "is not proper JSON (line 1)"),
        ("[" * 100_000, "is not proper JSON"),
        (f'{{"format": "{FORMAT}"}}', "does not say the version"),
        (f'{{"format": "{FORMAT}", "version": true}}', "does not say the version"),
        (f'{{"format": "{FORMAT}", "version": 2, "classes": []}}', "has version 2 of the format"),
        (f'{{"format": "{FORMAT}", "version": 1}}', "no list “classes”"),
        (f'{{"format": "{FORMAT}", "version": 1, "classes": [3]}}', "Class 1 of organs.csv is not"),
        (
            f'{{"format": "{FORMAT}", "version": 1, "classes": [{{"name": 3}}]}}',
            "“name” of class 1 in organs.csv is not a text",
        ),
    ],
)  # fmt: skip
def test_what_is_no_scheme_is_refused_with_its_place(text: str | bytes, sentence: str) -> None:
    assert sentence in said(text)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_in_words(data: bytes) -> None:
    for raw in (data, b"name\n" + data, b'{"format":' + data):
        try:
            assert read_scheme(raw).classes
        except InvalidInputError as error:
            assert error.what


def test_entries_that_mean_nothing_here_are_told() -> None:
    raw = {"format": FORMAT, "version": 1, "classes": [{"name": "a", "snomed": "1", "key": None}]}
    scheme = read_scheme(json.dumps(raw).encode())
    assert scheme.ignored == ("snomed",) and scheme.classes == (ClassSpec("a"),)


def test_suggested_keys_can_be_written_and_read() -> None:
    keyed = [
        ClassSpec(s.name, s.parent, color_for(i), key)
        for i, (s, key) in enumerate(
            zip(ORGAN_SYSTEMS, suggest_hotkeys(ORGAN_SYSTEMS), strict=True)
        )
    ]
    assert list(read_scheme(write_csv(keyed)).classes) == keyed


def test_colours_are_read_as_people_write_them() -> None:
    assert clean_color(" 07b") == clean_color("#0077bb") == clean_color("0077BB ") == "#0077BB"
    for bad in ("", "#", "blue", "#12345", "#GGGGGG", "rgb(1,2,3)", "##112233", "#1122334"):
        assert not is_color(bad)
        with pytest.raises(InvalidInputError, match="is not a colour"):
            clean_color(bad)
    assert is_color("#0077BB") and not is_color("#0077bb") and not is_color("#0077BB\n")


@given(st.from_regex("#[0-9A-F]{6}", fullmatch=True))
def test_text_on_any_colour_can_be_read(color: str) -> None:
    ink = luminance(text_color(color))
    light, dark = max(ink, luminance(color)), min(ink, luminance(color))
    assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG AA


def test_luminance_is_that_of_the_guidelines() -> None:
    assert luminance("#FFFFFF") == pytest.approx(1) and luminance("#000000") == 0
    assert luminance("#808080") == pytest.approx(0.2159, abs=1e-4)
    assert text_color("#FFFF00") == "#000000" and text_color("#332288") == "#FFFFFF"


# Machado, Oliveira and Fernandes 2009, severity 1: protan, deutan, tritan, in linear RGB
MACHADO = np.array([
    [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
])  # fmt: skip
TO_XYZ = np.array([
    [0.4124564, 0.3575761, 0.1804375],
    [0.2126729, 0.7151522, 0.0721750],
    [0.0193339, 0.1191920, 0.9503041],
])  # fmt: skip


def as_seen(color: str) -> np.ndarray:
    """Return CIELAB (4, 3) of a colour: with normal sight and three colour blindnesses."""
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(MACHADO @ linear, 0, 1) @ TO_XYZ.T / [0.95047, 1, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


def nearest(colors: tuple[str, ...], others: tuple[str, ...]) -> float:
    """Return the least difference of two different colours, to whichever eye sees it worst."""
    pairs = [(a, b) for a in colors for b in others if a != b]
    return float(min(np.linalg.norm(as_seen(a) - as_seen(b), axis=1).min() for a, b in pairs))


def test_thirty_classes_get_colours_that_every_eye_tells_apart() -> None:
    colors = tuple(color_for(i) for i in range(30))
    assert colors == COLORS + MORE_COLORS and len(set(colors)) == 30
    assert all(is_color(color) for color in colors) and color_for(30) == COLORS[0]
    assert nearest(COLORS, COLORS) > 4  # as published; a difference of 2.3 is just seen
    assert nearest(MORE_COLORS, colors) > 7
