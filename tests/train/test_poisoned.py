"""Models and checkpoints that hold a pickle with a program in it, or Python files: refused, and nothing runs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest

from tests.tiny import write_run
from tests.train.conftest import train

FEW = {"optim__max_steps": 2}


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.canary),)


def plant(path: Path, canary: Path) -> None:
    """A file as torch.save writes it, whose pickle runs a program."""
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("archive/data.pkl", pickle.dumps({"weight": Bomb(canary)}, protocol=2))
        packed.writestr("archive/version", "3\n")
        packed.writestr("archive/byteorder", "little")


@pytest.fixture
def model(folder: Path, tiny_model: Path) -> Path:
    copy = folder / "model"
    shutil.copytree(tiny_model, copy)
    return copy


def test_the_bomb_works(folder: Path) -> None:
    """Else the tests below show nothing."""
    import torch

    plant(folder / "x.bin", folder / "canary")
    torch.load(folder / "x.bin", weights_only=False)
    assert (folder / "canary").exists()


def test_pickled_weights_of_a_model(folder: Path, data: Path, model: Path) -> None:
    (model / "model.safetensors").unlink()
    plant(model / "pytorch_model.bin", folder / "canary")
    ended = train(write_run(folder / "run", model, data, **FEW))
    assert ended.code != 0 and not (folder / "canary").exists(), ended
    assert "error: " in ended.err and "Traceback" not in ended.err, ended.err


def test_pickled_weights_of_an_adapter_and_of_a_checkpoint(folder: Path, data: Path, model: Path) -> None:
    first = write_run(folder / "first", model, data, optim__max_steps=4, output__save_steps=2)
    assert train(first).code == 0
    adapter = folder / "adapter"
    shutil.copytree(first.parent / "final_model", adapter)
    (adapter / "adapter_model.safetensors").unlink()
    plant(adapter / "adapter_model.bin", folder / "canary")
    ended = train(write_run(folder / "second", model, data, model__adapter_name_or_path=str(adapter), **FEW))
    assert ended.code != 0 and not (folder / "canary").exists(), ended

    shutil.rmtree(first.parent / "final_model")
    shutil.rmtree(first.parent / "checkpoints/checkpoint-4")
    checkpoint = first.parent / "checkpoints/checkpoint-2"
    plant(checkpoint / "optimizer.pt", folder / "canary")
    mark = json.loads((checkpoint / "COMPLETE").read_text(encoding="utf-8"))
    mark["sizes"]["optimizer.pt"] = (checkpoint / "optimizer.pt").stat().st_size
    (checkpoint / "COMPLETE").write_text(json.dumps(mark), encoding="utf-8")
    ended = train(first)
    assert ended.code != 0 and not (folder / "canary").exists(), ended


def test_python_that_comes_with_a_model_runs_only_where_the_recipe_trusts_it(
    folder: Path, data: Path, model: Path
) -> None:
    canary = folder / "canary"
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Model"}
    config["model_type"] = "theirs"
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (model / "theirs.py").write_text(f"import os\nos.mkdir({str(canary)!r})\n", encoding="utf-8")
    ended = train(write_run(folder / "run", model, data, **FEW))
    assert ended.code != 0 and not canary.exists(), ended
    train(write_run(folder / "trusted", model, data, model__trust_remote_code=True, **FEW))
    assert canary.exists()
