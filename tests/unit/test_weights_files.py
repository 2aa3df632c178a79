"""Weights of a lab's own: found by one rule, said what is missing, and never run as a program."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cnsapp.domain.backbones import FACTS, check_pretrained, check_size, split_id
from cnsapp.errors import CnsError, InvalidInputError
from cnsapp.ml.backbone_chains import small_cnn
from cnsapp.ml.backbones import build_backbone
from cnsapp.weights_files import get_facts, own_ids, weights_state

CARD: dict[str, Any] = {
    "architecture": "small_cnn", "title": "Our liver network", "licence": "CC-BY-4.0",
    "mean": [0.7, 0.5, 0.7], "std": [0.2, 0.3, 0.2], "size": 96,
}  # fmt: skip


class Canary:
    """What a hostile file would run when it is opened without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks do not gain by more, and a loaded machine loses much."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty weights folder; torch's own cache is empty too."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def state(**others: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return weights of the small network, all 0.01 but its statistics."""
    found = {k: torch.full_like(v, 0.01) for k, v in small_cnn().state_dict().items()}
    return found | others


def write(folder: Path, weights: Any, card: Any = CARD, name: str = "lab.pth") -> None:
    if card is not None:
        text = card if isinstance(card, str) else json.dumps(card)
        (folder / name).with_suffix(".json").write_text(text, encoding="utf-8")
    if isinstance(weights, bytes):
        (folder / name).write_bytes(weights)
    elif name.endswith(".safetensors"):
        save_file(weights, folder / name)
    else:
        torch.save(weights, folder / name)


@pytest.mark.parametrize("name", ["lab.pth", "lab.safetensors"])
def test_a_file_with_its_card_is_a_backbone(folder: Path, name: str) -> None:
    write(folder, state(**{"classifier.bias": torch.zeros(7)}), name=name)
    loaded = build_backbone("file:lab", folder)
    assert loaded.row.id == "file:lab" and loaded.row.title == "Our liver network"
    assert loaded.row.licence == "CC-BY-4.0" and loaded.row.head_stages[-1] == "last"
    given = loaded.row.preprocessing
    assert (given.size, given.mean, given.std) == (96, (0.7, 0.5, 0.7), (0.2, 0.3, 0.2))
    assert loaded.left_out == ("classifier.bias",)
    plain = build_backbone("file:lab", folder, fuse=False)
    first = next(plain.net.parameters())
    assert torch.equal(first.detach(), torch.full_like(first, 0.01))


def test_what_the_card_leaves_out_is_as_the_network_has_it(folder: Path) -> None:
    write(folder, state(), {"architecture": "small_cnn"})
    row = build_backbone("file:lab", folder).row
    assert (row.title, row.licence) == ("lab", "not stated")
    assert row.preprocessing.as_json()["size"] == 224 and row.preprocessing.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("card", "words"),
    [
        (None, "There is no file lab.json in"),
        ("{", "lab.json can not be read as JSON"),
        ("[1]", "it is not one object in braces"),
        ({}, "“architecture” is missing"),
        ({"architecture": "../secret"}, "“architecture” can not be “../secret”"),
        ({"architecture": "file:lab"}, "“architecture” can not be “file:lab”"),
        (CARD | {"means": [1, 1, 1]}, "“means” is no entry of it"),
        (CARD | {"mean": [0.5, 0.5]}, "“mean” is to be three numbers from 0 to 1"),
        (CARD | {"std": [0.5, 0, 0.5]}, "“std” is to be three numbers from 0 to 1"),
        (CARD | {"mean": [123.7, 116.3, 103.5]}, "“mean” is to be three numbers from 0 to 1"),
        (CARD | {"size": "big"}, "“size” is to be a whole number from 16 to 2048"),
        (CARD | {"size": 20}, "“size” is 20, and Small CNN, from scratch needs 32 or more"),
    ],
)
def test_a_card_that_can_not_be_used_says_why(folder: Path, card: Any, words: str) -> None:
    write(folder, state(), card)
    with pytest.raises(InvalidInputError, match=re.escape(words)):
        get_facts("file:lab", folder)
    with pytest.raises(InvalidInputError, match=re.escape(words)):
        build_backbone("file:lab", folder)


def test_an_architecture_that_nobody_knows_is_said_with_names_like_it(folder: Path) -> None:
    write(folder, state(), {"architecture": "resnet5o"})
    with pytest.raises(CnsError, match=r"timm has no network “resnet5o”.*resnet50"):
        build_backbone("file:lab", folder)


FIRST = "features.0.0.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({FIRST: torch.zeros(8, 3, 3, 3)}, f"The layer {FIRST} is (8, 3, 3, 3) in it, and needs"),
        ({FIRST: None}, f"The layer {FIRST} is not in the file"),
        (
            {"features.9.weight": torch.zeros(1)},
            "It has a layer features.9.weight that",
        ),
    ],
)
def test_a_layer_that_does_not_fit_is_named(
    folder: Path, change: dict[str, Any], words: str
) -> None:
    weights = {k: v for k, v in (state() | change).items() if v is not None}
    write(folder, weights)
    with pytest.raises(CnsError, match=re.escape(words)) as caught:
        build_backbone("file:lab", folder)
    assert "lab.pth does not fit Our liver network" in caught.value.what


def test_program_code_in_a_weights_file_is_never_run(folder: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    evil = state() | {"extra": Canary(canary)}
    write(folder, evil)
    with pytest.raises(CnsError, match=r"lab\.pth holds program code beside the weights"):
        build_backbone("file:lab", folder)
    (folder / "lab.pth").write_bytes(pickle.dumps(Canary(canary), 2))  # a plain one
    with pytest.raises(CnsError, match="holds program code"):
        build_backbone("file:lab", folder)
    torch.save(small_cnn(), folder / "lab.pth")  # a whole model object
    with pytest.raises(CnsError, match="holds program code"):
        build_backbone("file:lab", folder)
    assert not canary.exists()


@pytest.mark.parametrize("name", ["lab.pth", "lab.safetensors"])
def test_half_a_file_is_refused(folder: Path, name: str) -> None:
    write(folder, state(), name=name)
    data = (folder / name).read_bytes()
    for broken in (b"", b"x" * 40, data[: len(data) // 2], data[:-1]):
        (folder / name).write_bytes(broken)
        with pytest.raises(CnsError, match=f"{re.escape(name)} cannot be read"):
            build_backbone("file:lab", folder)


def test_what_is_no_set_of_finite_arrays_is_refused(folder: Path) -> None:
    write(folder, [1, 2, 3])
    with pytest.raises(CnsError, match="does not hold named arrays alone"):
        build_backbone("file:lab", folder)
    write(folder, state(**{FIRST: torch.full((32, 3, 3, 3), float("nan"))}))
    with pytest.raises(CnsError, match=f"values that are not numbers, in {FIRST}"):
        build_backbone("file:lab", folder)


def test_weights_inside_a_checkpoint_of_a_trainer_are_found(folder: Path) -> None:
    inner = {f"module.{key}": value for key, value in state().items()}
    write(folder, {"epoch": 3, "state_dict": inner})
    assert build_backbone("file:lab", folder).left_out == ()


def test_half_precision_becomes_single(folder: Path) -> None:
    write(folder, {k: v.half() if v.is_floating_point() else v for k, v in state().items()})
    net = build_backbone("file:lab", folder, fuse=False).net
    assert {p.dtype for p in net.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "hf-hub:owner/model", "a" * 91])
@pytest.mark.parametrize("kind", ["file", "timm"])
def test_a_name_leads_to_no_other_folder(folder: Path, kind: str, name: str) -> None:
    with pytest.raises(InvalidInputError, match="names no network"):
        weights_state(f"{kind}:{name}", folder)


def test_an_unknown_backbone_is_named_with_those_that_are() -> None:
    with pytest.raises(InvalidInputError, match=r"no backbone “alexnet”.*resnet18.*timm:NAME"):
        split_id("alexnet")


@pytest.mark.parametrize("row_id", [k for k, v in FACTS.items() if v.weights == "file"])
def test_missing_weights_are_told_with_address_and_folder(folder: Path, row_id: str) -> None:
    found = weights_state(row_id, folder)
    assert not found.available and found.path is None
    assert FACTS[row_id].title in found.problem
    assert FACTS[row_id].url in found.remedy and str(folder) in found.remedy
    assert found.looked_for[0] == folder / FACTS[row_id].weights_file
    with pytest.raises(CnsError, match="not on this machine"):
        build_backbone(row_id, folder)


def test_weights_that_torch_has_already_are_found(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    path = cache / FACTS["resnet18"].weights_file
    path.write_bytes(b"")
    assert weights_state("resnet18", folder).path == path
    nearer = folder / "resnet18.safetensors"
    nearer.write_bytes(b"")
    assert weights_state("resnet18", folder).path == nearer


def test_what_needs_no_file_is_always_there(folder: Path) -> None:
    for row_id in ("efficientnet_lite0", "small_cnn"):
        assert weights_state(row_id, folder).available and FACTS[row_id].works_offline
    assert weights_state("efficientnet_lite0", None).path is not None


def test_files_in_the_folder_are_offered(folder: Path) -> None:
    for name in ("vgg16-397923af.pth", "resnet34.a1_in1k.safetensors", "lab.pth", "lab.json"):
        (folder / name).write_bytes(b"{}")
    assert own_ids(folder) == ["file:lab", "timm:resnet34.a1_in1k"]
    assert own_ids(folder / "nowhere") == []
    state_of = weights_state("timm:other", folder)
    assert "other.safetensors or other.pth" in state_of.remedy


def test_too_small_images_and_nothing_learnt_are_said_before_a_start() -> None:
    with pytest.raises(InvalidInputError, match=r"Images of 20 px are smaller than ResNet-18 can"):
        check_size(FACTS["resnet18"], 20)
    check_size(FACTS["resnet18"], 0)
    check_size(FACTS["resnet18"], 32)
    with pytest.raises(InvalidInputError, match="can not be the base of a quick model"):
        check_pretrained(FACTS["small_cnn"], "quick")
    check_pretrained(FACTS["small_cnn"], "full")
    check_pretrained(FACTS["resnet18"], "quick")
