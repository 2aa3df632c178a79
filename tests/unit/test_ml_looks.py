"""What makes images comparable: axes, clusters, the map; against scikit-learn and by hand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.preprocessing import StandardScaler

from cnsapp.errors import Cancelled
from cnsapp.ml import looks
from tests.looks import unit_rows


def never() -> None:
    """Nobody cancels."""


@pytest.mark.parametrize(("n", "d"), [(300, 90), (40, 90), (200, 20)])
def test_the_product_of_two_rows_is_the_cosine_of_half_whitened_components(n: int, d: int) -> None:
    rng = np.random.default_rng(3)
    features = (rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 5).astype(np.float32)
    rows = looks.Projection.fit(features).apply(features)
    n_kept = min(64, d, n - 1)
    pca = PCA(n_kept, svd_solver="full")
    scores = pca.fit_transform(StandardScaler().fit_transform(features.astype(float)))
    scores /= pca.explained_variance_**0.25
    scores /= np.linalg.norm(scores, axis=1, keepdims=True)
    assert rows.shape == (n, n_kept)
    np.testing.assert_allclose(rows @ rows.T, scores @ scores.T, atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_images_that_are_all_the_same_and_columns_that_never_change_make_no_trouble() -> None:
    same = np.full((30, 12), 0.25, np.float32)
    assert np.isfinite(looks.Projection.fit(same).apply(same)).all()
    one = looks.Projection.fit(same[:1])
    assert one.apply(same[:1]).shape == (1, 1)
    part = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    padded = np.concatenate([part, np.full((50, 3), 7, np.float32)], axis=1)
    alone = looks.Projection.fit(part).apply(part)
    both = looks.Projection.fit(padded).apply(padded)
    np.testing.assert_allclose(alone @ alone.T, both @ both.T, atol=1e-4)


@pytest.mark.parametrize(
    ("n", "k"), [(1, 1), (2, 1), (3, 2), (50, 7), (1000, 32), (10_000, 100), (10**6, 150)]
)
def test_how_many_clusters_there_are(n: int, k: int) -> None:
    assert looks.n_clusters(n) == k


def test_clusters_are_the_heaps_that_there_are_the_largest_first() -> None:
    rows, kind = unit_rows(900, k=6, noise=0.1)
    clusters, _ = looks.cluster(rows, 6)
    assert adjusted_rand_score(kind, clusters) > 0.99
    sizes = np.bincount(clusters)
    assert sizes.tolist() == sorted(sizes.tolist(), reverse=True)
    again, _ = looks.cluster(rows, 6)
    np.testing.assert_array_equal(again, clusters)


@pytest.mark.parametrize("k", [2, 7, None])
def test_the_ratio_is_the_distance_to_the_own_middle_over_that_to_the_second(k: int | None) -> None:
    rows, _ = unit_rows(400, k=5)
    clusters, ratio = looks.cluster(rows, k)
    # k-means has come to rest: its middles are the means of what it gave them
    middles = np.array([rows[clusters == i].mean(axis=0) for i in range(clusters.max() + 1)])
    apart = np.linalg.norm(rows[:, None].astype(float) - middles[None], axis=2)
    assert (apart.argmin(axis=1) == clusters).all()
    first, second = np.sort(apart, axis=1)[:, :2].T
    np.testing.assert_allclose(ratio, first / second, atol=1e-3)
    assert ((ratio >= 0) & (ratio <= 1)).all()


def test_clear_images_are_purer_than_whole_clusters() -> None:
    rows, kind = unit_rows(1500, k=8, noise=1.1)
    clusters, ratio = looks.cluster(rows)

    def purity(which: Any) -> float:
        right = [np.bincount(kind[which & (clusters == i)]).max(initial=0)
                 for i in range(clusters.max() + 1)]  # fmt: skip
        return float(sum(right) / which.sum())

    clear = ratio <= np.quantile(ratio, 0.5)
    assert purity(clear) > purity(~clear) + 0.05


def test_another_seed_starts_elsewhere() -> None:
    rows, _ = unit_rows(300, noise=1.0)
    one, other = (looks.cluster(rows, seed=seed)[0] for seed in (0, 1))
    assert (one != other).any()


def test_the_same_picture_under_many_names_leaves_no_empty_cluster() -> None:
    rows = np.repeat(unit_rows(3, k=3)[0], 40, axis=0)
    clusters, ratio = looks.cluster(rows)
    assert set(clusters.tolist()) == {0, 1, 2}
    np.testing.assert_allclose(ratio, 0, atol=1e-2)
    alone, none_else = looks.cluster(rows[:2])
    assert alone.tolist() == [0, 0]
    assert none_else.tolist() == [1, 1]  # with one cluster nothing is far from the others


def test_neighbours_are_those_of_a_search_through_all() -> None:
    rows, _ = unit_rows(2500, d=10)
    near, apart = looks.nearest_rows(rows, 8)
    due_apart, due = NearestNeighbors(n_neighbors=8, algorithm="brute").fit(rows).kneighbors(rows)
    assert (near[:, 0] == np.arange(2500)).all()
    np.testing.assert_allclose(apart[:, 1:], due_apart[:, 1:], atol=2e-3)
    assert (near == due).mean() > 0.999  # equals may change places


def test_each_of_the_same_pictures_is_its_own_first_neighbour() -> None:
    rows = np.repeat(unit_rows(4, k=4)[0], 30, axis=0)
    near, _ = looks.nearest_rows(rows, 15)
    assert (near[:, 0] == np.arange(120)).all()
    assert all(len(set(line)) == 15 for line in near.tolist())


def test_the_map_keeps_heaps_together_and_is_the_same_each_time() -> None:
    rows, kind = unit_rows(400, noise=0.2)
    places, method = looks.make_map(rows, never)
    assert method == "umap"
    assert places.shape == (400, 2)
    seen = KNeighborsClassifier(5).fit(places[::2], kind[::2]).score(places[1::2], kind[1::2])
    assert seen > 0.97
    np.testing.assert_array_equal(looks.make_map(rows, never)[0], places)


def test_images_beyond_the_sample_lie_among_those_they_look_like() -> None:
    rows, kind = unit_rows(1500, noise=0.2)
    some = looks.sample_of(1500, 300)
    placed = np.random.default_rng(0).normal(0, 0.1, (300, 2)) + np.stack(
        [10 * kind[some], -5 * kind[some]], axis=1
    )
    places = looks.place_others(rows, some, placed.astype(np.float32), never)
    np.testing.assert_allclose(places[some], placed, atol=1e-6)
    assert (np.abs(places[:, 0] - 10 * kind) < 1).mean() > 0.99


def test_without_umap_the_map_shows_the_first_two_components(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "umap.py").write_text("raise ImportError('not here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    rows, _ = unit_rows(60)
    places, method = looks.make_map(rows, never)
    assert method == "pca"
    np.testing.assert_array_equal(places, rows[:, :2])


def test_a_few_images_have_a_map_too() -> None:
    for n, d in ((1, 1), (3, 2), (15, 14)):
        places, method = looks.make_map(unit_rows(n, d=d)[0], never)
        assert (places.shape, method) == ((n, 2), "pca")


def makes_a_map(process: psutil.Process) -> bool:
    """Say whether a process is a running map; one that another test left to be reaped is none."""
    try:
        return "cnsapp.ml.looks_map" in process.cmdline()
    except psutil.Error:
        return False


def test_a_map_nobody_wants_any_more_ends_at_once() -> None:
    rows, _ = unit_rows(6000, d=64)
    looked = []

    def stop_soon() -> None:
        looked.append(1)
        if len(looked) == 4:
            raise Cancelled

    with pytest.raises(Cancelled):
        looks.make_map(rows, stop_soon)
    assert [child for child in psutil.Process(os.getpid()).children() if makes_a_map(child)] == []
