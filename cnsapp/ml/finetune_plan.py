"""What happens in which step: order of the images, batches, learning rate, weights of classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cnsapp.errors import CnsError
from cnsapp.ml.finetune_types import EpochRecord, Ints

MARGIN = 0.5  # standard errors
MANY = 500
"""Independent samples from which on a network may move far from where it started. With 822 tiles
(five tissues, no groups) the gentle rate left it at the start's 0.91 on tiles held back; the bold
one came to 0.96. With 23 patients, or 219 captures of cells, gentle runs hold best. Between the two
nothing was measured."""
GENTLE_RATE, BOLD_RATE = 2e-4, 2e-3
HALF_WAY = 0.5
"""On groups held back it beat the fine-tuned weights alone at every epoch of five short runs with
few groups (bladder frames, cervical cells; by 0.04 on average)."""
LAST_RATE = 0.01  # share of the highest rate that the cosine ends at
SMALLEST_BATCH = 2  # batch normalisation has no spread of one image
_ORDER, _DROPOUT = 1, 2  # what a draw is for


@dataclass(frozen=True)
class Batch:
    """Rows of one step.

    Attributes
    ----------
    rows
        (B,) row numbers of the data.
    turns
        (B,) how often each came before in this epoch.
    """

    rows: Ints
    turns: Ints


def seed_of(*parts: int) -> int:
    """Return one seed (63 bits) that follows from several numbers."""
    return int(np.random.SeedSequence(list(parts)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def epoch_batches(
    rows: Ints, labels: Ints, balance: str, batch_size: int, seed: int, epoch: int
) -> list[Batch]:
    """Return the batches of an epoch; the same arguments give the same batches.

    Parameters
    ----------
    rows
        (n,) training rows.
    labels
        (N,) class of every row of the data.
    balance
        `sampling` draws every class equally often (an epoch keeps its length); else every row
        comes once.
    batch_size
        Images a step; a last batch of one joins the batch before.

    Raises
    ------
    CnsError
        The batch size is 1.
    """
    if batch_size < SMALLEST_BATCH:
        raise CnsError(
            f"The batch size is {batch_size}.",
            "Batch normalisation needs the spread between images, and one image has none.",
            f"Set the batch size to {SMALLEST_BATCH} or more, or to 0, which finds it.",
        )
    generator = np.random.default_rng([seed, epoch, _ORDER])
    order = (
        _balanced_order(rows, labels[rows], generator)
        if balance == "sampling"
        else generator.permutation(rows)
    )
    turns = _turns(order)
    cuts = list(range(batch_size, len(order), batch_size))
    if cuts and len(order) - cuts[-1] < SMALLEST_BATCH:
        cuts.pop()
    return [Batch(r, t) for r, t in zip(np.split(order, cuts), np.split(turns, cuts), strict=True)]


def _balanced_order(rows: Ints, y: Ints, generator: np.random.Generator) -> Ints:
    """Return n rows with every class as often as the others, each class gone through in turn."""
    classes = np.unique(y)
    quotas = np.full(len(classes), len(rows) // len(classes))
    extra = generator.permutation(len(classes))[: len(rows) - quotas.sum()]
    quotas[extra] += 1
    drawn = []
    for c, quota in zip(classes, quotas, strict=True):
        members = rows[y == c]
        rounds = -(-int(quota) // len(members))
        drawn.append(
            np.concatenate([generator.permutation(members) for _ in range(rounds)])[:quota]
        )
    return np.asarray(generator.permutation(np.concatenate(drawn)), np.int64)


def _turns(order: Ints) -> Ints:
    seen: dict[int, int] = {}
    turns = np.zeros(len(order), np.int64)
    for i, row in enumerate(order.tolist()):
        turns[i] = seen.get(row, 0)
        seen[row] = int(turns[i]) + 1
    return turns


def dropout_mask(
    n: int, width: int, share: float, seed: int, epoch: int, batch: int
) -> torch.Tensor | None:
    """Return factors (n, width), 0 with probability `share`, else 1 / (1 - share); None for 0."""
    if share <= 0:
        return None
    generator = torch.Generator().manual_seed(seed_of(seed, epoch, batch, _DROPOUT))
    return (torch.rand(n, width, generator=generator) >= share).float() / (1 - share)


def rate_factor(step: int, n_steps: int, warmup: float) -> float:
    """Return the share of the highest learning rate in a step.

    It rises evenly over the first `warmup` steps, then falls along half a cosine to `LAST_RATE`.

    Parameters
    ----------
    step
        0 to `n_steps` - 1.
    n_steps
        Of the whole run.
    warmup
        Steps of the rise; at most half the run.

    References
    ----------
    Loshchilov and Hutter, SGDR: stochastic gradient descent with warm restarts, ICLR 2017.
    """
    warmup = min(warmup, n_steps / 2)
    if step < warmup:
        return (step + 1) / (math.ceil(warmup) + 1)
    done = (step - warmup) / max(1.0, n_steps - warmup)
    return LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * done))


def image_weights(labels: Ints, balance: str, n_classes: int) -> NDArray[np.float32]:
    """Return the weight (K,) of an image of each class in the loss.

    With `weights` every class present counts alike, n / (classes present x images of the class);
    else every image counts 1.
    """
    if balance != "weights":
        return np.ones(n_classes, np.float32)
    counts = np.bincount(labels, minlength=n_classes)
    present = int((counts > 0).sum())
    return np.where(counts > 0, len(labels) / (present * np.maximum(counts, 1)), 0).astype(
        np.float32
    )


def ema_decay(decay: float, n_updates: int) -> float:
    """Return the decay of the running average in its n-th update (0-based).

    It starts small, so that an average of few steps is not mostly the start.
    """
    return min(decay, (1 + n_updates) / (10 + n_updates))


def best_of(records: Sequence[EpochRecord], n_validation: int) -> EpochRecord:
    """Return the epoch to take the network from.

    The best validation balanced accuracy wins; of equals, the lower loss. But the start (epoch 0)
    stays unless that is better by `MARGIN` standard errors: with few validation images the best of
    many epochs is better by luck alone, and the quick model holds better on new groups.

    Parameters
    ----------
    records
        With or without epoch 0.
    n_validation
        Images that the scores are from.

    References
    ----------
    Breiman et al., Classification and regression trees, 1984 (a margin of standard errors).
    """
    best = peak_of(records)
    start = next((r for r in records if r.epoch == 0), None)
    if start is None or start.validation_balanced_accuracy is None:
        return best
    return best if _score(best) > _score(start) + margin(_score(start), n_validation) else start


def margin(score: float, n: int) -> float:
    """Return how much better than a balanced accuracy of n images another must be to count."""
    return MARGIN * math.sqrt(score * (1 - score) / n)


def peak_of(records: Sequence[EpochRecord]) -> EpochRecord:
    """Return the epoch with the best validation balanced accuracy; of equals, the lower loss."""
    return max(records, key=lambda r: (_score(r), -r.validation_loss))


def _score(record: EpochRecord) -> float:
    score = record.validation_balanced_accuracy
    return -math.inf if score is None else score


def choose_rate(wish: float, n_independent: int) -> float:
    """Return the highest learning rate of the head.

    Parameters
    ----------
    wish
        The dial; 0 chooses `GENTLE_RATE`, or `BOLD_RATE` where there are `MANY` samples.
    n_independent
        Groups to learn from, or images that have no groups.
    """
    if wish > 0:
        return wish
    return BOLD_RATE if n_independent >= MANY else GENTLE_RATE


def first_share(n_independent: int) -> float:
    """Return the share of the fine-tuned weights in their average with the start's.

    It is what epochs are judged by; the end of a run tries other shares.

    Parameters
    ----------
    n_independent
        Groups to learn from, or images that have no groups.
    """
    return 1.0 if n_independent >= MANY else HALF_WAY


def choose_frozen(wish: int, names: Sequence[str], *, pretrained: bool, on_cpu: bool) -> int:
    """Return how many first stages stay as they are.

    Parameters
    ----------
    wish
        The dial; -1 chooses: none for a network from scratch; on a CPU all but the last two (for
        EfficientNet-Lite0, three of five: 2.2 times the images a second of learning all); on a GPU
        the first.
    names
        Of the stages up to the last that the head reads.

    Raises
    ------
    CnsError
        More stages than there are.
    """
    if wish > len(names):
        raise CnsError(
            f"There are {len(names)} stages to learn, and {wish} are to be frozen.",
            "",
            f"Set frozen stages to at most {len(names)} (then only the head learns), or to -1.",
        )
    if wish >= 0:
        return wish
    if not pretrained:
        return 0
    return max(0, len(names) - 2) if on_cpu else min(1, len(names) - 1)
