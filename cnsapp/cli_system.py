"""Commands for the installation: init, run, worker, doctor, backup, restore."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from cnsapp.cli_io import JsonFlag, answer, opened, out, say
from cnsapp.errors import CnsError

APP_FILE = Path(__file__).resolve().parent.parent / "app.py"


def register(cli: typer.Typer) -> None:
    """Add these commands."""
    cli.command("init")(init)
    cli.command("run")(run)
    cli.command("worker")(worker)
    cli.command("doctor")(doctor)
    cli.command("backup")(backup)
    cli.command("restore")(restore)


def init(as_json: JsonFlag = False) -> None:
    """Create the data folder and its database, or upgrade them (after a backup)."""
    from db.session import sqlite_version, sqlite_warning

    app = opened()
    warning = sqlite_warning() if app.store.engine.dialect.name == "sqlite" else None
    if warning:
        say(warning)
    version = ".".join(map(str, sqlite_version()))
    home = str(app.settings.root)
    answer(
        {"home": home, "sqlite": version},
        [f"Ready: {home} (SQLite {version})"],
        as_json,
    )


def run(
    port: Annotated[
        int | None, typer.Option(help="Port; CNS_PORT or 8501, or the next free one.")
    ] = None,
    address: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "localhost",
    browser: Annotated[bool, typer.Option(help="Open the browser, where there is one.")] = True,
) -> None:
    """Set up the data folder and open the app in the browser (the worker starts beside it)."""
    app = opened()
    app.store.engine.dispose()
    chosen = port or _free_port(app.settings.port)
    if not _is_free(chosen):
        raise CnsError(f"Port {chosen} is in use.", "", "Name another one: run --port NUMBER.")
    shown = "localhost" if address in ("localhost", "127.0.0.1", "0.0.0.0") else address
    out(f"The app opens at http://{shown}:{chosen}  (data: {app.settings.root}; stop: Ctrl+C)")
    sys.stdout.flush()
    command = [
        sys.executable, "-m", "streamlit", "run", str(APP_FILE),
        "--server.port", str(chosen),
        "--server.address", address,
        "--server.headless", "false" if browser and _has_display() else "true",
        "--browser.gatherUsageStats", "false",
    ]  # fmt: skip
    os.environ["CNS_HOME"] = str(app.settings.root)  # Streamlit starts elsewhere
    os.chdir(APP_FILE.parent)  # .streamlit/config.toml is read from here
    if os.name == "posix":
        os.execv(sys.executable, command)  # one process: what stops this command stops the app
    raise typer.Exit(subprocess.run(command, check=False).returncode)


def worker(
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda:N or mps; CNS_DEVICE when not named.")
    ] = None,
    until_job: Annotated[
        int | None, typer.Option(help="Stop when this job has ended.", hidden=True)
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a worker: it trains, predicts and explains what the app and other commands ask for."""
    from cnsapp.jobs.worker import main
    from cnsapp.settings import Settings

    def announce(settings: Settings) -> None:
        facts = {"home": str(settings.root), "device": settings.device}
        answer(facts, [f"Working for {settings.root} (stop: Ctrl+C)"], as_json)
        sys.stdout.flush()

    raise typer.Exit(main(device=device, until_job=until_job, on_start=announce))


def doctor(as_json: JsonFlag = False) -> None:
    """Check database, labels, files, worker and disk; exit 1 when something is wrong."""
    from cnsapp.services.health import examine

    checks = examine(opened())
    sound = all(check.state != "problem" for check in checks)
    lines = [
        f"{check.state.upper():8} {check.name}: {check.detail.rstrip('.')}. {check.remedy}".rstrip()
        for check in checks
    ]
    answer({"sound": sound, "checks": [check.as_json() for check in checks]}, lines, as_json)
    if not sound:
        raise typer.Exit(1)


def backup(
    out_file: Annotated[
        Path | None, typer.Option("--out", help="The zip to write; below backups/ when not named.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Copy database, images and models into one checked zip."""
    from cnsapp.services.backups import make_backup

    report = make_backup(opened(), out=out_file)
    line = f"{report.path}  ({report.n_files} files, {report.n_bytes / 1e6:.1f} MB)"
    lines = [line]
    if report.n_linked:
        lines.append(
            f"Not in it: the files of {report.n_linked} linked images, which stay where they are. "
            "Keep a copy of those folders yourself."
        )
    answer(report.as_json(), lines, as_json)


def restore(file: Path, as_json: JsonFlag = False) -> None:
    """Bring a backup back; what is in the data folder now is moved aside, never overwritten."""
    from cnsapp.services.backups import refuse_while_running, restore_backup
    from cnsapp.settings import read_settings

    settings = read_settings()
    if settings.database_url:
        raise CnsError(
            "CNS_DATABASE_URL names a database outside the data folder.",
            "A restore brings back a whole data folder, with a database of its own.",
            "Unset CNS_DATABASE_URL to restore; bring a server's database back with its own tools.",
        )
    if (settings.root / "cns.sqlite").exists():
        refuse_while_running(settings)
    report = restore_backup(settings.root, file=file.absolute())
    lines = [f"Restored {report.n_files} files into {report.home}."]
    if report.moved_aside:
        lines.append(f"What was there before is in {report.moved_aside}.")
    answer(report.as_json(), lines, as_json)


def _has_display() -> bool:
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _free_port(wanted: int) -> int:
    return next((p for p in range(wanted, min(wanted + 50, 65536)) if _is_free(p)), wanted)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
