"""Stage mlm: an encoder learns, on masks that can be had again; what is no encoder is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from tests.tiny import make_rows, make_tiny_encoder, write_jsonl, write_run
from tests.train.conftest import losses, metrics, weights
from tests.train.here import config, train_here
from trainers.data.dataset import IGNORED
from trainers.data.documents import NO_WORD
from trainers.data.kinds import Text
from trainers.data.masking import Masking
from trainers.data.tokenised import make_rows as make_token_rows
from trainers.errors import InputProblem


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_encoder(tmp_path_factory.mktemp("model") / "bert")


@pytest.fixture
def text(folder: Path) -> Path:
    return write_jsonl(folder / "text.jsonl", [{"text": " ".join(row)} for row in make_rows(120)])


def test_perplexity_falls_and_a_resumed_run_draws_the_same_masks(folder: Path, text: Path, encoder: Path) -> None:
    wanted: dict[str, Any] = {
        "stage": "mlm",
        "model__adapter": "none",
        "data__validation_split": 0.25,
        "data__max_length": 64,
        "method__whole_word": True,
        "optim__per_device_train_batch_size": 8,
        "optim__gradient_accumulation_steps": 2,
        "optim__max_steps": 60,
        "optim__learning_rate": 3e-3,
    }
    train_here(write_run(folder / "whole", encoder, text, **wanted))
    parts = write_run(folder / "parts", encoder, text, **wanted)
    (parts.parent / "stop").touch()
    train_here(parts, code=85)
    (parts.parent / "stop").unlink()
    train_here(parts)
    assert losses(parts.parent) == losses(folder / "whole")
    assert weights(parts.parent) == weights(folder / "whole")
    before, after = (line for line in metrics(folder / "whole") if "eval_loss" in line)
    assert metrics(parts.parent)[-1]["eval_loss"] == after["eval_loss"]
    assert after["eval_perplexity"] < 0.4 * before["eval_perplexity"]


def test_an_adapter_on_an_encoder_learns(folder: Path, text: Path, encoder: Path) -> None:
    run = write_run(folder / "run", encoder, text, stage="mlm", optim__max_steps=30, data__validation_split=0.25)
    train_here(run)
    before, after = (line for line in metrics(run.parent) if "eval_loss" in line)
    assert after["eval_loss"] < before["eval_loss"] - 0.05
    assert (run.parent / "final_model" / "adapter_model.safetensors").is_file()


def test_masks(encoder: Path) -> None:
    masking = Masking(0.15, whole_word=False, mask_token=4, vocabulary=1000)
    ids = torch.full((200, 60), 7)
    words = torch.arange(60).expand(200, 60).clone() // 3
    words[:, -5:] = NO_WORD
    masked, labels = masking(ids, words, torch.Generator().manual_seed(0))
    chosen = labels != IGNORED
    assert not chosen[:, -5:].any()
    assert chosen[:, :-5].float().mean().item() == pytest.approx(0.15, abs=0.01)
    assert (masked[chosen] == 4).float().mean().item() == pytest.approx(0.8, abs=0.03)
    assert (masked[chosen] == 7).float().mean().item() == pytest.approx(0.1, abs=0.03)
    assert (labels[chosen] == 7).all() and (masked[~chosen] == 7).all()

    _, labels = Masking(0.15, True, 4, 1000)(ids, words, torch.Generator().manual_seed(0))
    whole = (labels[:, :54] != IGNORED).view(200, 18, 3)
    assert (whole.all(2) == whole.any(2)).all()
    assert whole.float().mean().item() == pytest.approx(0.15, abs=0.02)


def test_words_and_the_rows_of_a_long_document(encoder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    run = config(encoder, "mlm", data={"train_files": ["none"], "max_length": 16})

    counts: Counter[str] = Counter()

    def rows(text: str) -> list[Any]:
        return list(make_token_rows(run, tokenizer, [Text(text, "")], "training", counts))

    # A word of several tokens has one number; so has each Chinese character, and not a whole sentence.
    (row,) = rows("player 199 狼人")
    tokens = tokenizer.convert_ids_to_tokens(row["input_ids"])
    assert [tokens[0], tokens[-1]] == ["[CLS]", "[SEP]"]
    assert row["words"][0] == row["words"][-1] == NO_WORD
    assert row["words"].max() == 3
    assert (row["words"] == 1).sum() == sum(token.startswith("##") for token in tokens) + 1 > 1
    long = rows("player 7 " * 20)
    assert len(long) == 3
    assert (counts["documents"], counts["cut"]) == (2, 1)
    assert sum(len(row["input_ids"]) - 2 for row in long) == len(tokenizer("player 7 " * 20)["input_ids"]) - 2
    assert all(row["words"].max() < len(row["words"]) for row in long)


def test_models_that_do_not_fit_are_refused_before_they_are_loaded(
    folder: Path, text: Path, encoder: Path, tiny_model: Path, bad: Callable[[Path], list[str]]
) -> None:
    said = bad(write_run(folder / "causal", tiny_model, text, stage="mlm"))
    assert "stage mlm needs an encoder" in said[0]
    with pytest.raises(InputProblem, match="stage cpt needs a causal language model"):
        train_here(write_run(folder / "encoder", encoder, text, stage="cpt"))
