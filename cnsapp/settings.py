"""Every setting, its default and its environment variable (`CNS_` and the name in capitals)."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from cnsapp.errors import StoreError


def default_import_roots() -> list[Path]:
    """Return the folders below which the app may read images: home, and where disks are mounted."""
    if sys.platform == "win32":
        return [Path(f"{letter}:\\") for letter in "CDEFGHIJKLMNOPQRSTUVWXYZ"]
    mounts = [Path(p) for p in ("/mnt", "/media", "/data", "/Volumes") if Path(p).is_dir()]
    return [Path.home(), *mounts]


class Settings(BaseSettings):
    """Settings of one installation. Paths below `home` are derived, so that the folder can move."""

    model_config = SettingsConfigDict(env_prefix="CNS_", extra="ignore")

    home: Path = Field(default=Path("data"), description="the data folder")
    database_url: str | None = Field(
        default=None, description="PostgreSQL address; SQLite below `home` when empty"
    )
    import_roots: list[Path] = Field(
        default_factory=default_import_roots,
        description="folders below which the app may read images (JSON list)",
    )
    start_worker: bool = Field(default=True, description="the app starts a worker beside itself")
    device: str = Field(default="auto", description="auto, cpu, cuda:N or mps")
    torch_threads: int = Field(default=0, ge=0, description="CPU threads of the worker; 0 = all")
    port: int = Field(default=8501, ge=1, le=65535)
    max_pixels: int = Field(default=200_000_000, gt=0, description="largest image read, in pixels")
    max_file_bytes: int = Field(default=4_000_000_000, gt=0)
    max_aspect_ratio: float = Field(default=200.0, gt=1)
    read_seconds: float = Field(default=60.0, gt=0, description="time for decoding an image")
    max_frames: int = Field(default=10_000, gt=0, description="pages or frames of one file")
    max_slide_tiles: int = Field(
        default=100_000, gt=0, description="most tiles cut from one whole slide"
    )
    max_tile_cache_bytes: int = Field(
        default=20_000_000_000,
        ge=0,
        description="tiles of large pictures kept for the viewer, the longest unused go; 0 = all",
    )
    max_map_cache_bytes: int = Field(
        default=5_000_000_000,
        ge=0,
        description="saliency maps kept, the longest unused go; 0 = all",
    )
    max_zip_ratio: float = Field(default=100.0, gt=1, description="unpacked / packed size of a zip")
    max_zip_members: int = Field(default=200_000, gt=0)
    lease_seconds: float = Field(
        default=300.0, gt=0, description="an image that somebody was handed is theirs so long"
    )
    watch_seconds: float = Field(
        default=10.0, gt=0, description="between two looks at a watched folder"
    )
    heartbeat_seconds: float = Field(default=2.0, gt=0, description="a live worker's pulse")
    dead_after_seconds: float = Field(default=12.0, gt=0, description="silence = a dead worker")

    @property
    def root(self) -> Path:
        """The data folder as an absolute path."""
        return Path(os.path.abspath(self.home))

    @property
    def database(self) -> str:
        """The address SQLAlchemy opens."""
        return self.database_url or f"sqlite:///{(self.root / 'cns.sqlite').as_posix()}"


def read_settings() -> Settings:
    """Return the settings of the environment.

    Raises
    ------
    StoreError
        A variable cannot be read; the sentence names it and its value.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        reason = first["msg"].partition(",")[0].replace("Input", "it")
    except SettingsError as error:
        field = (re.findall(r'field "(\w+)"', str(error)) or ["?"])[0]
        reason = 'it should be a JSON list, such as ["/mnt/slides"]'
    name = f"CNS_{field.upper()}"
    value = next((v for key, v in os.environ.items() if key.upper() == name), "")
    raise StoreError(
        f"The environment variable {name} cannot be “{value}”: {reason}.",
        "",
        "Correct it, or unset it for the default.",
    )
