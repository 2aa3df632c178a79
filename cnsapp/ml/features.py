"""Features of images: mean and spread of every stage of a frozen backbone, computed once, kept."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cnsapp.errors import CnsError
from cnsapp.ml.backbones import DEFAULT_BACKBONE, LoadedBackbone, StageNet, build_backbone
from cnsapp.ml.device import Device, choose_device
from cnsapp.ml.preprocess import (
    CLEAN,
    JITTER_VERSION,
    Pixels,
    make_view,
    pixels_key,
)
from cnsapp.ml.streams import batches, run_batches

Floats = NDArray[np.float32]
POOLING = "mean+std"
N_COLOUR = 6


def pool_stages(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return mean and population standard deviation over the cells of every map.

    Parameters
    ----------
    maps
        Stage outputs (B, C_s, h_s, w_s), any float type.

    Returns
    -------
    (B, sum of 2 C_s) float32: for each stage its C_s means, then its C_s standard deviations.
    """
    with torch.autocast(maps[0].device.type, enabled=False):  # in 16 bits a spread loses its digits
        return torch.cat([_pooled(m) for m in maps], dim=1)


def _pooled(m: torch.Tensor) -> torch.Tensor:
    """Return mean and spread (B, 2 C) of one map."""
    cells = m.float().permute(0, 2, 3, 1).flatten(1, 2)  # (B, cells, C): no copy, channels last
    share = cells.new_full((1, 1, 1), 1 / cells.shape[1]).expand(len(m), 1, cells.shape[1])
    mean = torch.bmm(share, cells)  # a product: 7 times as fast as torch.var_mean on a CPU
    # not of the centred cells: a pass less over the largest maps, and as exact as they need
    variance = (torch.bmm(share, cells.square()) - mean.square()).clamp_min(0)
    return torch.cat([mean[:, 0], (variance[:, 0] + 1e-6).sqrt()], dim=1)


@dataclass(frozen=True)
class FeatureLayout:
    """Where each stage's numbers lie in a feature row.

    Attributes
    ----------
    stages
        `(name, start, stop)` in order.
    """

    stages: tuple[tuple[str, int, int], ...]

    @property
    def n_network(self) -> int:
        """Number of columns that come from the network."""
        return self.stages[-1][2]

    @property
    def n_columns(self) -> int:
        """Number of columns of a stored row: the network's and six colour numbers."""
        return self.n_network + N_COLOUR

    def columns(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Return the column numbers of the named stages, in network order."""
        known = {name for name, _, _ in self.stages}
        if unknown := set(names) - known:
            raise CnsError(
                f"There is no stage {sorted(unknown)[0]!r}.", "", f"Use {sorted(known)}."
            )
        return np.concatenate([np.arange(a, b) for name, a, b in self.stages if name in names])

    def split(self, rows: Floats) -> tuple[Floats, Floats]:
        """Split stored rows (N, V, D) into network features (N, V, D - 6), clean colour (N, 6)."""
        return rows[..., : self.n_network], rows[:, 0, self.n_network :]


class FeatureExtractor:
    """Turns images into feature rows with one frozen backbone.

    Parameters
    ----------
    backbone
        Registry id, or a backbone that is already loaded.
    device
        Where to run; None chooses.
    weights_dir
        Folder with weights files (`CNS_HOME/weights`).
    whole
        Compute every stage, as the last-layer control needs; otherwise the stages behind the last
        one that a head reads are left out (a quarter of the work of EfficientNet-Lite0).

    Attributes
    ----------
    spec_id
        16 hexadecimal digits naming backbone, weights, preprocessing, stages, pooling and jitter.
        Rows of different specs must not be mixed.
    layout
        Which columns belong to which stage.
    """

    def __init__(
        self,
        backbone: str | LoadedBackbone = DEFAULT_BACKBONE,
        device: Device | None = None,
        weights_dir: Path | None = None,
        *,
        whole: bool = False,
    ) -> None:
        loaded = build_backbone(backbone, weights_dir) if isinstance(backbone, str) else backbone
        self.backbone = loaded
        self.device = device or choose_device()
        net = loaded.net if whole else loaded.net.until(loaded.row.head_stages)
        self.layout = _layout_of(net, loaded.row.min_size)
        self.net = net.to(self.device.torch)
        self.preprocessing = loaded.row.preprocessing
        self.spec = {
            "backbone": loaded.row.id,
            "weights": loaded.weights_hash,
            "preprocessing": self.preprocessing.as_json(),
            "stages": [list(stage) for stage in self.layout.stages],
            "pooling": POOLING,
            "jitter": JITTER_VERSION,
        }
        text = json.dumps(self.spec, sort_keys=True)
        self.spec_id = hashlib.sha256(text.encode()).hexdigest()[:16]

    def extract(
        self,
        images: Iterable[Pixels],
        view: str = CLEAN,
        keys: Sequence[str] | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Floats:
        """Return one feature row (N, D) an image: `extract_views` with a single view."""
        found = self.extract_views(images, (view,), keys, progress=progress, cancelled=cancelled)
        return found[:, 0]

    def extract_views(
        self,
        images: Iterable[Pixels],
        views: Sequence[str],
        keys: Sequence[str] | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Floats:
        """Return one feature row a view of every image.

        Parameters
        ----------
        images
            uint8 (H, W, 3) arrays of any sizes. A generator is read in a second thread while the
            network runs, at most a few batches ahead.
        views
            See `cnsapp.ml.preprocess.make_view`.
        keys
            SHA-256 of each image, which seeds its jitter; None hashes the pixels.
        progress
            Called as `progress(done, total)`, in images, after every batch; total is 0 when
            unknown.
        cancelled
            Asked before every batch.

        Returns
        -------
        (N, V, D) float32: `layout.n_network` network columns, then mean and standard deviation of
        red, green and blue of the view (0 to 1).

        Raises
        ------
        Cancelled
            When `cancelled()` says so.
        CnsError
            An array is not an RGB image, or the view is unknown.
        """
        total = len(images) if isinstance(images, Sequence) else len(keys or ())
        size = self.preprocessing.size

        def prepared() -> Iterator[Pixels]:
            for i, image in enumerate(images):
                key = keys[i] if keys is not None else pixels_key(image)
                clean = make_view(image, size)
                for view in views:
                    yield make_view(clean, size, view, key)

        done, rows = 0, []
        stacks = map(np.stack, batches(prepared(), self.device.batch_size))
        for part in run_batches(self.forward, stacks, self.device, cancelled):
            rows.append(part)
            done += len(part)
            if progress is not None:
                progress(done // len(views), total)
        shape = (-1, len(views), self.layout.n_columns)
        flat = np.concatenate(rows) if rows else np.zeros((0, self.layout.n_columns), np.float32)
        return flat.reshape(shape)

    def forward(self, batch: Pixels) -> Floats:
        """Return feature rows (B, D) of views at network size, uint8 (B, S, S, 3)."""
        std = torch.tensor(self.preprocessing.std, device=self.device.torch)
        mean = torch.tensor(self.preprocessing.mean, device=self.device.torch)
        with self.device.inference():
            x = self.preprocessing.normalise(torch.from_numpy(batch).to(self.device.torch))
            network, colour = pool_stages(self.net(x)), pool_stages([x])
            colour = torch.cat([colour[:, :3] * std + mean, colour[:, 3:] * std], dim=1)
            rows: Floats = torch.cat([network, colour], dim=1).cpu().numpy()
        return rows


def _layout_of(net: StageNet, size: int) -> FeatureLayout:
    with torch.inference_mode():
        maps = net.cpu()(torch.zeros(1, 3, size, size))
    stops = np.cumsum([2 * m.shape[1] for m in maps]).tolist()
    starts = [0, *stops[:-1]]
    return FeatureLayout(tuple(zip(net.names, starts, stops, strict=True)))


class FeatureStore:
    """Feature rows on disk: one SQLite file a spec, keyed by image hash and view, safe in a crash.

    Rows are kept as 16-bit floats (relative error 0.0005, far below the noise of a stain). Several
    processes may read and write. A damaged file is put aside and started afresh: features can be
    computed again.

    Parameters
    ----------
    folder
        `CNS_HOME/features`.
    spec_id, n_columns
        From the extractor.
    """

    def __init__(self, folder: Path, spec_id: str, n_columns: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{spec_id}.sqlite"
        self.n_columns = n_columns
        try:
            self._create()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # locked, disk full: not damage
                raise CnsError(
                    f"The feature file {self.path.name} cannot be opened ({error}).",
                    "",
                    "Check free disk space and that no other program holds the file.",
                ) from error
            self.path.replace(self.path.with_suffix(".damaged"))
            self._create()

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=30)

    def _create(self) -> None:
        with closing(self._connect()) as connection, connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS feature (view TEXT NOT NULL, sha256 TEXT NOT NULL,"
                " row BLOB NOT NULL, PRIMARY KEY (view, sha256)) WITHOUT ROWID"
            )

    def missing(self, shas: Sequence[str], view: str = CLEAN) -> list[str]:
        """Return those image hashes, in order, that have no row for the view yet."""
        known: set[str] = set()
        with closing(self._connect()) as connection:
            for chunk in batches(shas, 500):
                marks = ",".join("?" * len(chunk))
                query = f"SELECT sha256 FROM feature WHERE view = ? AND sha256 IN ({marks})"
                known.update(sha for (sha,) in connection.execute(query, [view, *chunk]))
        return [sha for sha in shas if sha not in known]

    def put(self, shas: Sequence[str], view: str, rows: Floats) -> None:
        """Keep rows (N, D) in one transaction; a row that exists already is replaced."""
        if rows.shape != (len(shas), self.n_columns):
            raise ValueError(f"rows are {rows.shape}, not {(len(shas), self.n_columns)}")
        blobs = [row.tobytes() for row in rows.astype(np.float16)]
        with closing(self._connect()) as connection, connection:
            connection.executemany(
                "INSERT OR REPLACE INTO feature (view, sha256, row) VALUES (?, ?, ?)",
                zip([view] * len(shas), shas, blobs, strict=True),
            )

    def load(self, shas: Sequence[str], views: Sequence[str] = (CLEAN,)) -> Floats:
        """Return rows (N, V, D) float32 in the order asked for.

        Raises
        ------
        CnsError
            A row is missing (says how many).
        """
        out = np.empty((len(shas), len(views), self.n_columns), np.float32)
        places: dict[str, list[int]] = {}
        for i, sha in enumerate(shas):
            places.setdefault(sha, []).append(i)
        with closing(self._connect()) as connection:
            for v, view in enumerate(views):
                found = 0
                for chunk in batches(places, 500):
                    marks = ",".join("?" * len(chunk))
                    query = (
                        f"SELECT sha256, row FROM feature WHERE view = ? AND sha256 IN ({marks})"
                    )
                    for sha, blob in connection.execute(query, [view, *chunk]):
                        out[places[sha], v] = np.frombuffer(blob, np.float16)
                        found += 1
                if found < len(places):
                    raise CnsError(
                        f"Features of {len(places) - found} of {len(places)} images are missing.",
                        "They are computed in the background after import.",
                        "Wait for that job, or start it again.",
                    )
        return out
