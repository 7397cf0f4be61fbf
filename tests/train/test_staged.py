"""Two-stage training: which weights change, byte for byte, and that stage 2 begins where stage 1 ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tests.tiny import make_rows, write_jsonl, write_run
from tests.train.conftest import losses
from tests.train.here import train_here
from trainers.errors import InputProblem
from trainers.model.load import load_trained

STAGED = {"model__adapter": "none", "method": {"packing": False}, "optim__learning_rate": 5e-3}


def tensors(folder: Path) -> dict[str, bytes]:
    """Every weight of a saved model, as bytes."""
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {name: file.get_tensor(name).numpy().tobytes() for name in file.keys()}  # noqa: SIM118


@pytest.fixture
def texts(folder: Path) -> Path:
    """48 short documents."""
    return write_jsonl(folder / "texts.jsonl", [{"text": " ".join(row)} for row in make_rows()])


def test_stage_1_changes_the_chosen_layers_alone_and_stage_2_all(folder: Path, texts: Path, tiny_model: Path) -> None:
    one, two = folder / "one", folder / "two"
    train_here(
        write_run(
            one, tiny_model, texts, stage="stage1", model__rope_free_layers=[1], precision__dtype="bf16", **STAGED
        )
    )
    before, after = tensors(tiny_model), tensors(one / "final_model")
    assert set(before) == set(after)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if name.startswith("model.layers.1.")}
    saved = json.loads((one / "final_model/config.json").read_text())
    assert saved["rope_free_layers"] == [1] and saved["dtype"] == "float32"
    assert (one / "final_model/generation_config.json").exists() and (one / "final_model/tokenizer.json").exists()
    assert losses(one)[8] < losses(one)[1]

    # A step too small to be seen: what comes out is what stage 2 started from, and the layers come with the model.
    train_here(
        write_run(
            folder / "still", one / "final_model", texts, stage="stage2",
            **STAGED | {"optim__learning_rate": 1e-30, "optim__max_steps": 1},
        )
    )  # fmt: skip
    assert tensors(folder / "still/final_model") == after
    train_here(write_run(two, one / "final_model", texts, stage="stage2", **STAGED))
    final = tensors(two / "final_model")
    assert not [name for name in final if final[name] == after[name]]
    assert json.loads((two / "final_model/config.json").read_text())["rope_free_layers"] == [1]
    # The loss goes on where stage 1 ended, which it would not with positions switched on again.
    assert losses(two)[1] == losses(folder / "still")[1]
    ids = torch.arange(20)[None]
    kept = load_trained(str(two / "final_model"))
    with torch.no_grad():
        free = kept(input_ids=ids).logits
        kept.model.layers[1].self_attn._forward_pre_hooks.clear()
        assert not torch.allclose(kept(input_ids=ids).logits, free, atol=1e-3)

    contradiction = write_run(
        folder / "x", one / "final_model", texts, stage="stage2", model__rope_free_layers=[0], **STAGED
    )
    with pytest.raises(InputProblem, match=r"rope_free_layers \[0\]: this model was trained with \[1\]"):
        train_here(contradiction)
    with pytest.raises(InputProblem, match=r"stage2 needs model\.rope_free_layers"):
        train_here(write_run(folder / "y", tiny_model, texts, stage="stage2", **STAGED))
