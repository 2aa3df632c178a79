"""Settings of the environment: a wrong one is said in words, by whatever reads it."""

from __future__ import annotations

import pytest

from cnsapp.cli import main
from cnsapp.errors import CnsError, StoreError
from cnsapp.jobs import worker
from cnsapp.settings import read_settings
from cnsapp.ui import start


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("CNS_PORT", "abc", "CNS_PORT cannot be “abc”: it should be a valid integer."),
        ("CNS_MAX_PIXELS", "0", "CNS_MAX_PIXELS cannot be “0”: it should be greater than 0."),
        ("CNS_IMPORT_ROOTS", "/mnt", "CNS_IMPORT_ROOTS cannot be “/mnt”: it should be a JSON list"),
    ],
)
def test_a_variable_that_cannot_be_read_is_named_with_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StoreError) as caught:
        read_settings()
    assert sentence in str(caught.value)


def test_commands_the_worker_and_the_app_all_say_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CNS_PORT", "abc")
    sentence = "The environment variable CNS_PORT cannot be “abc”"
    assert main(["project", "list", "--json"]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith(sentence)
    assert worker.main() == worker.CANNOT_START
    assert capsys.readouterr().err.startswith(sentence)
    with pytest.raises(StoreError, match=sentence):
        start.opened()
    assert start.routes() == []


@pytest.mark.parametrize("wish", ["cuda:99", "cuda:first", "tpu"])
def test_a_device_that_is_not_there_names_the_setting(wish: str) -> None:
    from cnsapp.ml.device import choose_device

    with pytest.raises(CnsError, match="Set CNS_DEVICE, or the worker's --device, to auto"):
        choose_device(wish)
