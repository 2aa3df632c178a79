"""Weights from files that may be damaged, foreign or hostile: numbers come in, and nothing else."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from cnsapp.errors import CnsError, InvalidInputError

StateDict = dict[str, torch.Tensor]
WRAPPERS = ("state_dict", "model", "model_state_dict")  # keys under which trainers keep the weights
COUNTER = "num_batches_tracked"  # of a normalisation; older files lack it, and nothing reads it
HEADS = ("fc.", "head.", "heads.", "classifier.")  # what classifiers are called, if no layer is
SPARE = ("mask_token",)  # keys of a training that a network in use has no need of


def read_state(path: Path) -> StateDict:
    """Return the named arrays of a .safetensors file, or of a .pth file without running its code.

    Raises
    ------
    InvalidInputError
        The file can not be read, is damaged, holds program code, or holds other things than named
        arrays of finite numbers.
    """
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise a dozen kinds for a damaged file
        if isinstance(error, pickle.UnpicklingError) and "global" in str(error).lower():
            raise _holds_code(path) from error
        raise InvalidInputError(
            f"The weights file {path.name} cannot be read ({type(error).__name__}).",
            "It is damaged or not a plain weights file.",
            f"Replace {path} by a fresh copy.",
        ) from error
    return _named_arrays(found, path)


def _holds_code(path: Path) -> InvalidInputError:
    return InvalidInputError(
        f"The weights file {path.name} holds program code beside the weights, and was not opened.",
        "Such a file can do anything on this machine; the app reads numbers alone.",
        "Save the weights alone, torch.save(model.state_dict(), ...), or better as .safetensors.",
    )


def _named_arrays(found: Any, path: Path) -> StateDict:
    for key in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    if not isinstance(found, Mapping) or not all(map(torch.is_tensor, found.values())):
        raise InvalidInputError(
            f"The weights file {path.name} does not hold named arrays alone.",
            "",
            "Save the weights alone: torch.save(model.state_dict(), ...).",
        )
    state = {str(key): value for key, value in found.items()}
    if state and all(key.startswith("module.") for key in state):  # as DataParallel names them
        state = {key.removeprefix("module."): value for key, value in state.items()}
    for key, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise InvalidInputError(
                f"The weights file {path.name} holds values that are not numbers, in {key}.",
                "The training that wrote it had failed.",
                "Use the weights of an earlier epoch.",
            )
    return state


def load_body(
    net: nn.Module,
    state: Mapping[str, torch.Tensor],
    head_keys: Sequence[str],
    title: str,
    path: Path,
) -> list[str]:
    """Give a network its weights, all but those of its classifier.

    Parameters
    ----------
    net
        May be built on torch's `meta` device: its arrays become those of the file.
    state
        From `read_state`, with today's names.
    head_keys
        How names of the classifier begin. It is not used, so it may lack or be of other classes.
    title, path
        For sentences.

    Returns
    -------
    Names in the file that were left out.

    Raises
    ------
    CnsError
        A layer of the body lacks, has another shape, or is one that the network has not; names it.
    """
    prefixes = tuple(head_keys)
    wanted = {key: value for key, value in net.state_dict().items() if not _starts(key, prefixes)}
    heads = (*prefixes, *(p for p in HEADS if not any(key.startswith(p) for key in wanted)))
    left_out = [key for key in state if _starts(key, heads) or key in SPARE]
    given = {key: value for key, value in state.items() if key not in left_out}
    for key, value in wanted.items():
        if key.endswith(COUNTER) and key not in given:
            given[key] = torch.zeros((), dtype=torch.long)
        if key not in given:
            raise _does_not_fit(title, path, f"The layer {key} is not in the file")
        if given[key].shape != value.shape:
            had, needs = tuple(given[key].shape), tuple(value.shape)
            raise _does_not_fit(title, path, f"The layer {key} is {had} in it, and needs {needs}")
    if foreign := [key for key in given if key not in wanted]:
        raise _does_not_fit(title, path, f"It has a layer {foreign[0]} that the network has not")
    typed = {key: given[key].to(value.dtype).contiguous() for key, value in wanted.items()}
    net.load_state_dict(typed, strict=False, assign=True)
    return left_out


def _starts(key: str, prefixes: tuple[str, ...]) -> bool:
    return bool(prefixes) and key.startswith(prefixes)


def _does_not_fit(title: str, path: Path, why: str) -> CnsError:
    return InvalidInputError(
        f"The weights file {path.name} does not fit {title}.",
        f"{why}: it is for another network.",
        "Put the published file in its place, or name the right network.",
    )


def digest_of(path: Path) -> str:
    """Return the first 16 hexadecimal digits of a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def digest_of_state(state: Mapping[str, torch.Tensor]) -> str:
    """Return the same of weights that are in no file."""
    total = hashlib.sha256()
    for key, value in state.items():
        total.update(key.encode())
        total.update(value.detach().contiguous().numpy().tobytes())
    return total.hexdigest()[:16]
