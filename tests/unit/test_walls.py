"""Which room may know which: read from the imports, so that the drawing stays true."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TORCH = {"torch", "torchvision", "captum", "timm", "safetensors"}
STORE = {"db", "sqlalchemy", "alembic"}
SCREEN = {"streamlit"}
ROOMS = {"services", "domain", "imaging", "ml", "jobs", "tasks", "ui"}

# room -> what nothing in it may import; rooms of cnsapp are named like "cnsapp.ml"
FORBIDDEN = {
    "cnsapp/domain": TORCH | STORE | SCREEN | {"PIL", "cnsapp.ml", "cnsapp.imaging"},
    "cnsapp/imaging": TORCH | STORE | SCREEN | {"cnsapp.ml", "cnsapp.services", "cnsapp.jobs"},
    "cnsapp/ml": STORE | SCREEN | {"cnsapp.services", "cnsapp.jobs", "cnsapp.imaging"},
    "cnsapp/services": TORCH | SCREEN | {"dbos", "cnsapp.ml", "cnsapp.ui", "cnsapp.tasks"},
    "cnsapp/jobs": TORCH | SCREEN | {"cnsapp.ml", "cnsapp.ui", "cnsapp.imaging"},
    "cnsapp/tasks": SCREEN | {"cnsapp.ui"},
    "cnsapp/ui": TORCH | STORE | {"dbos", "cnsapp.ml", "cnsapp.tasks"},
    "pages": TORCH | STORE | {"dbos", "cnsapp.ml", "cnsapp.tasks", "cnsapp.imaging"},
    "db": TORCH | SCREEN | {f"cnsapp.{room}" for room in ROOMS - {"domain"}},
}  # fmt: skip


def imported_names(path: Path) -> Iterator[str]:
    """Yield every module a file imports, wherever in the file it does so."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def breaches(room: str, forbidden: set[str]) -> list[str]:
    """Return the imports of a room that the drawing does not allow."""
    found = set()
    for path in sorted((ROOT / room).rglob("*.py")):
        for name in imported_names(path):
            if any(name == bad or name.startswith(bad + ".") for bad in forbidden):
                found.add(f"{path.relative_to(ROOT)} imports {name}")
    return sorted(found)


@pytest.mark.parametrize("room", sorted(FORBIDDEN))
def test_a_room_imports_only_what_the_drawing_allows(room: str) -> None:
    assert breaches(room, FORBIDDEN[room]) == []


def test_the_walk_sees_an_import_inside_a_function(tmp_path: Path) -> None:
    file = tmp_path / "page.py"
    file.write_text("def f():\n    from torch import nn\n    return nn\n")
    assert "torch.nn" in list(imported_names(file))


def test_everything_the_web_process_imports_leaves_torch_and_the_queue_alone() -> None:
    code = (
        "import sys, cnsapp.bootstrap, cnsapp.http\n"
        "import pkgutil, importlib, cnsapp.services\n"
        "for m in pkgutil.iter_modules(cnsapp.services.__path__):\n"
        "    importlib.import_module('cnsapp.services.' + m.name)\n"
        "heavy = {'torch', 'dbos', 'captum', 'timm', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
