"""The docs go stale silently; here they fail: commands, settings, keys, sentences and links."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest
import typer

from cnsapp.cli import cli
from cnsapp.domain.recipe import BACKBONES, DIALS, OPTIONS, PRESETS, Dial, make_recipe
from cnsapp.domain.schemes import HOTKEYS
from cnsapp.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
GUIDE = [ROOT / "docs" / name for name in ("guide.md", "training.md", "commands.md")]
DOCS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
DOCS += sorted((ROOT / "docs").rglob("*.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)")
NO_MORE_IN_PAGES = 480  # lines that somebody still reads


def guide() -> str:
    """Return the user guide, all its pages."""
    return "\n".join(page.read_text(encoding="utf-8") for page in GUIDE)


def chapter(title: str) -> str:
    """Return a chapter or section of the guide, without its heading."""
    found = re.search(rf"^(#+) {re.escape(title)}$(.*?)(?=^#|\Z)", guide(), re.M | re.S)
    assert found, f"the guide has no chapter “{title}”"
    return str(found[2])


def first_cells(text: str) -> list[str]:
    """Return the first cell of every row of a Markdown table, without its head."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [row.split("|")[1].strip() for row in rows[2:]]


def commands() -> Iterator[tuple[str, list[set[str]]]]:
    """Yield each command with the ways to write its options; those of groups: `export labels`."""
    top = typer.main.get_command(cli)
    for name, command in top.commands.items():  # type: ignore[attr-defined]
        for part, leaf in getattr(command, "commands", {"": command}).items():
            shown = [p for p in leaf.params if not getattr(p, "hidden", False)]
            ways = [{o for o in [*p.opts, *p.secondary_opts] if o[:1] == "-"} for p in shown]
            yield f"{name} {part}".strip(), [way for way in ways if way]


def test_every_command_is_in_the_guide() -> None:
    missing = [name for name, _ in commands() if f"`{name}`" not in chapter("Commands")]
    assert missing == []


def test_every_option_of_a_command_is_in_the_guide() -> None:
    text = guide()
    missing = [
        f"{name} {sorted(ways)}"
        for name, options in commands()
        for ways in options
        if not any(way in text for way in ways)
    ]
    assert missing == []


def test_every_command_but_run_prints_json() -> None:
    lacking = [name for name, ways in commands() if {"--json"} not in ways]
    assert lacking == ["run"]


def test_the_guide_shows_no_command_that_is_not_there() -> None:
    known = {name for name, _ in commands()}
    shown = {cell.strip("`") for cell in first_cells(chapter("Commands"))}
    assert shown - known == set()


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_every_setting_is_in_the_table_with_its_default(name: str) -> None:
    row = re.search(
        rf"^\| `CNS_{name.upper()}` \| ([^|]*) \|", chapter("Environment variables"), re.M
    )
    assert row, f"CNS_{name.upper()} is not in the table"
    default = Settings.model_fields[name].default
    if isinstance(default, bool | int | float | str | Path):
        plain = f"{default:g}" if isinstance(default, float) else str(default)
        assert row[1].strip("`") == (plain.lower() if isinstance(default, bool) else plain)


def test_the_table_names_no_setting_that_is_not_there() -> None:
    named = set(re.findall(r"CNS_[A-Z_]+", guide()))
    assert named <= {f"CNS_{name.upper()}" for name in Settings.model_fields}


def test_every_backbone_and_training_setting_is_in_the_guide() -> None:
    assert [name for name in [*BACKBONES, *OPTIONS] if f"`{name}`" not in guide()] == []


def as_shown(value: object) -> str:
    """Return a setting's default as the table writes it."""
    if isinstance(value, bool | str):
        return {True: "true", False: "false", "": "automatic"}.get(value, str(value))
    return f"{value:g}"


@pytest.mark.parametrize("dial", DIALS, ids=lambda dial: dial.name)
def test_the_table_of_settings_has_the_defaults_of_every_preset(dial: Dial) -> None:
    row = re.search(rf"^\| `{dial.name}` \|(.*)\|$", chapter("All settings"), re.M)
    assert row, f"{dial.name} is not in the table"
    _, quick, tuned, what = [cell.strip() for cell in row[1].split("|")]
    has = {p: as_shown(getattr(make_recipe(p), dial.name)) for p in PRESETS if p in dial.presets}
    assert quick == has.get("quick", "–")
    assert tuned == (", ".join(dict.fromkeys([has["full"], has["best"]])) if "full" in has else "–")
    assert what == dial.help


def test_every_key_of_the_labelling_screen_is_in_the_table() -> None:
    sheet = (ROOT / "cnsapp/ui/labeller/sheet.js").read_text(encoding="utf-8")
    sheet = sheet[sheet.index("function buildSheet") :]
    rows = re.findall(r'\["([^"]+)", "([^"]+)"\]', sheet)
    assert len(rows) > 15, "the sheet of keys is written in another way now"
    text = chapter("All keys")
    table = first_cells(text)
    for key, meaning in rows:
        if key.split()[-1] in ("click", "drag"):
            assert re.search(key, text, re.I), f"{key}: {meaning}"
        else:
            assert any(cell.startswith(key) or key in cell for cell in table), f"{key}: {meaning}"


def test_class_keys_and_reserved_letters_are_the_ones_of_the_guide() -> None:
    text = " ".join(chapter("All keys").split())
    letters = [key for key in HOTKEYS if key.isalpha()]
    assert f"`{' '.join(letters)}`" in text
    said = re.search(r"The letters ([a-z, ]+ and [a-z]) are never class keys", text)
    assert said
    reserved = set(re.findall(r"\b[a-z]\b", said[1]))
    assert reserved == set("abcdefghijklmnopqrstuvwxyz") - set(HOTKEYS)
    single = {cell.lower() for cell in first_cells(chapter("All keys")) if len(cell) == 1}
    assert {key for key in single if key.isalpha()} <= reserved


@cache
def sentences() -> tuple[str, ...]:
    """Return every text that the product holds; what is filled in stands as an ellipsis."""
    found: list[str] = []
    for room in ("cnsapp", "db", "pages"):
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    for path in sorted((ROOT / "cnsapp").rglob("*.js")):
        found.append(re.sub(r"\$\{[^}]*\}", "…", path.read_text(encoding="utf-8")))
    return tuple(found)


@pytest.mark.parametrize("said", first_cells(chapter("When something goes wrong")))
def test_the_errors_of_the_guide_are_what_the_product_says(said: str) -> None:
    parts = [part.strip(" “”") for part in said.split("…")]
    for part in filter(None, parts):
        assert any(part in text for text in sentences()), f"nothing says “{part}”"


def headings(path: Path) -> set[str]:
    """Return the anchors of a file's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


def links(path: Path) -> list[str]:
    """Return what a file links to inside the project, pictures too."""
    found = LINK.findall(path.read_text(encoding="utf-8"))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_and_picture_resolves(path: Path) -> None:
    broken = []
    for link in links(path):
        name, _, anchor = unquote(link).partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in headings(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", GUIDE, ids=lambda page: page.name)
def test_the_guide_stays_short(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").splitlines()) <= NO_MORE_IN_PAGES
