"""The commands: `python -m cnsapp ...`. Each one is a service call; nothing is computed here.

Exit status 0: done. 1: an error, in plain words on stderr. 2: wrong usage. With `--json` a command
prints one JSON value on stdout and nothing else.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cnsapp import (
    cli_audit,
    cli_backbones,
    cli_classes,
    cli_controls,
    cli_data,
    cli_evaluate,
    cli_files,
    cli_label_errors,
    cli_labelling,
    cli_learn,
    cli_looks,
    cli_models,
    cli_people,
    cli_quality,
    cli_queue,
    cli_reading,
    cli_splits,
    cli_suggest,
    cli_system,
    cli_take,
)
from cnsapp.cli_io import say
from cnsapp.errors import Cancelled, CnsError

cli = typer.Typer(
    name="cnsapp",
    help="Label tissue images, train a network on them, see where it is wrong, apply it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
PARTS = (
    cli_system, cli_data, cli_classes, cli_files, cli_labelling, cli_reading, cli_quality,
    cli_queue, cli_looks, cli_people, cli_suggest, cli_backbones, cli_splits, cli_learn,
    cli_models, cli_evaluate, cli_label_errors, cli_controls, cli_audit, cli_take,
)  # fmt: skip
for part in PARTS:
    part.register(cli)


@cli.callback()
def _home(
    home: Annotated[
        Path | None, typer.Option(help="The data folder (CNS_HOME; ./data when not named).")
    ] = None,
) -> None:
    if home is not None:
        os.environ["CNS_HOME"] = str(home)  # the worker that a command starts reads it too


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; no error leaves as a traceback."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a Windows console may not know every letter of a name
            stream.reconfigure(errors="replace")
    try:
        cli(args=arguments, prog_name="python -m cnsapp")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except CnsError as error:
        say(str(error))
        return 1
    except (KeyboardInterrupt, Cancelled):
        say("Stopped.")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        say(f"Something went wrong that the app did not expect: {error!r}. {_noted()}")
        return 1
    return 0


def _noted() -> str:
    from cnsapp.settings import read_settings

    try:
        log = read_settings().root / "logs" / "commands.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as handle:
            moment = datetime.now(UTC).isoformat(timespec="seconds")
            handle.write(f"{moment} {sys.argv[1:]}\n{traceback.format_exc()}\n")
    except Exception:
        return "Please report it."
    return f"The details stand in {log}; please report it with them."
