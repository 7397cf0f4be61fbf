"""Packed rows: they do not see each other, and they teach what the same rows teach unpacked."""

from __future__ import annotations

from collections import Counter
from math import ceil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler
from transformers import AutoModelForCausalLM, AutoTokenizer, OPTConfig, OPTForCausalLM, Qwen2ForCausalLM, Trainer

from tests.tiny import write_jsonl, write_run
from tests.train.conftest import losses, metrics
from tests.train.here import config, train_here
from trainers.data.arithmetic import count_steps
from trainers.data.collate import Collator
from trainers.data.dataset import IGNORED
from trainers.data.kinds import Example, Text
from trainers.data.tokenised import make_rows
from trainers.errors import InputProblem
from trainers.model import likelihood
from trainers.model.likelihood import Likelihood
from trainers.model.packed import check_packing

FIRST, OTHER, SECOND = list(range(10, 19)), list(range(30, 39)), list(range(50, 62))


def load(path: Path, attention: str = "sdpa") -> Any:
    return AutoModelForCausalLM.from_pretrained(path, attn_implementation=attention)


def talk(turns: int, number: int) -> Example:
    """A conversation of so many questions and answers."""
    messages = []
    for turn in range(turns):
        messages.append({"role": "user", "content": f"Player {number}, turn {turn}?"})
        messages.append({"role": "assistant", "content": "A wolf. " * (1 + (number + turn) % 3)})
    return Example(messages, "")


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_second_document_does_not_see_the_first(tiny_model: Path, attention: str, checkpointing: bool) -> None:
    model = load(tiny_model, attention)
    if checkpointing:
        model.train()
        model.activation_checkpointing_enable({"use_reentrant": False})

    def second(first: list[int]) -> torch.Tensor:
        rows = [{"input_ids": first + SECOND, "seq_lengths": [9, 12]}, {"input_ids": FIRST, "seq_lengths": [9]}]
        batch = Collator(0)(rows)
        return model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits[0, 9:]

    alone = model(input_ids=torch.tensor([SECOND]), use_cache=False).logits[0]
    # What is before it changes not one bit; alone it differs by rounding, as the products have another shape.
    assert torch.equal(second(FIRST), second(OTHER))
    assert torch.allclose(second(FIRST), alone, rtol=0, atol=1e-6)
    seen = model(input_ids=torch.tensor([FIRST + SECOND]), use_cache=False).logits[0, 9:]
    assert (seen - alone).abs().max() > 0.01


def test_a_model_that_cannot_keep_documents_apart_is_refused(tiny_model: Path) -> None:
    run = config(tiny_model, "cpt")
    check_packing(load(tiny_model), run)
    counting = OPTForCausalLM(
        OPTConfig(
            vocab_size=64,
            hidden_size=16,
            word_embed_proj_dim=16,
            ffn_dim=16,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
    )
    with pytest.raises(InputProblem, match="OPTForCausalLM does not keep packed documents apart"):
        check_packing(counting, run)


def test_flash_attention_gets_one_row_and_the_lengths_of_its_parts() -> None:
    rows = [{"input_ids": FIRST + SECOND, "seq_lengths": [9, 12]}, {"input_ids": OTHER, "seq_lengths": [9]}]
    batch = Collator(0, flat=True)(rows)
    assert batch["input_ids"].tolist() == [FIRST + SECOND + OTHER]
    assert batch["cu_seq_lens_q"].tolist() == [0, 9, 21, 30]
    assert batch["max_length_k"] == 12
    assert (batch["labels"][0] == IGNORED).nonzero().flatten().tolist() == [0, 9, 21]


def test_packed_conversations_have_the_loss_of_unpacked_ones(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_model), load(tiny_model)
    rows = [talk(1 + number % 3, number) for number in range(20)]
    scorer = Likelihood(model)

    def loss(packing: bool) -> tuple[float, int, int]:
        run = config(tiny_model, data={"train_files": ["none"], "max_length": 200}, method={"packing": packing})
        made = list(make_rows(run, tokenizer, rows, "training", Counter()))
        nll, mask, _ = scorer.score(model, Collator(tokenizer.pad_token_id)(made))
        return float(nll.sum()) / int(mask.sum()), int(mask.sum()), len(made)

    with torch.no_grad():
        packed, unpacked = loss(True), loss(False)
        assert packed[0] == pytest.approx(unpacked[0], rel=1e-6)
        assert packed[1] == unpacked[1]
        assert packed[2] < unpacked[2] / 2
        # And the same where the logits of a batch are too large to be there at once.
        from trl.trainer.utils import add_fused_lm_head

        add_fused_lm_head(model, outputs=("log_probs", "is_top1"))
        monkeypatch.setattr(likelihood, "LARGE", 0)
        assert loss(True)[0] == pytest.approx(unpacked[0], rel=1e-6)


def test_every_token_of_a_document_is_learnt_once(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    texts = [Text(f"Player {number} is the wolf. " * number, "") for number in range(1, 30)]
    documents = [[*tokenizer(text.text)["input_ids"], tokenizer.eos_token_id] for text in texts]

    def learnt(packing: bool) -> tuple[list[int], Counter[str], int]:
        run = config(tiny_model, "cpt", method={"packing": packing})
        counts = Counter[str]()
        rows = list(make_rows(run, tokenizer, texts, "training", counts))
        assert max(len(row["input_ids"]) for row in rows) == 64
        batch = Collator(0)(rows)
        labels = batch["labels"][:, 1:]
        return sorted(labels[labels != IGNORED].tolist()), counts, len(rows)

    whole = sorted(token for document in documents for token in document[1:])
    for packing in (True, False):
        tokens, counts, rows = learnt(packing)
        assert tokens == whole
        assert (counts["documents"], counts["tokens"]) == (29, sum(map(len, documents)))
        assert counts["cut"] == sum(len(document) > 64 for document in documents) > 0
        assert rows >= len(whole) / 64


def test_sft_packed_does_as_many_steps_as_its_blocks_ask_for_and_neftune_is_off_in_evaluation(
    folder: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"messages": talk(1 + number % 3, number).messages} for number in range(40)]
    data = write_jsonl(folder / "talks.jsonl", rows)

    def run(name: str, **overrides: Any) -> Path:
        train_here(
            write_run(
                folder / name,
                tiny_model,
                data,
                data__max_length=200,
                data__validation_split=0.25,
                method__packing=True,
                optim__max_steps=-1,
                optim__num_train_epochs=2.0,
                optim__gradient_accumulation_steps=2,
                # Nothing moves, so that steps can be compared.
                optim__learning_rate=1e-30,
                **overrides,
            )
        )
        return folder / name

    with caplog.at_level("INFO", "trainers"):
        plain, noisy = run("plain"), run("noisy", method__neftune_noise_alpha=5.0)
    said = next(text for text in caplog.messages if "effective batch" in text)
    blocks = int(said.split()[0])
    assert 2 < blocks < 15
    per_epoch = ceil(ceil(blocks / 2) / 2)
    assert said.endswith(f"{per_epoch} steps an epoch x 2 epochs = {2 * per_epoch} steps")
    lines, others = metrics(plain), metrics(noisy)
    assert lines[-1]["step"] == 2 * per_epoch
    assert any("packed 30, training" in text for text in caplog.messages)
    measured = [line["eval_loss"] for line in (*lines, *others) if "eval_loss" in line]
    assert len(measured) == 4 and len(set(measured)) == 1
    trained = [(line["loss"], other["loss"]) for line, other in zip(lines, others, strict=True) if "loss" in line]
    assert all(loss != other for loss, other in trained)
    # Some models say that they cannot be told how many tokens a step has. We count them all the same.
    monkeypatch.setattr(Qwen2ForCausalLM, "accepts_loss_kwargs", False, raising=False)
    assert losses(run("proud")) == losses(plain)


def test_processes_share_the_batches_as_the_arithmetic_says() -> None:
    for rows, batch, processes, accumulation in ((1000, 2, 4, 8), (1001, 2, 4, 8), (7, 2, 4, 1), (130, 4, 3, 2)):
        batches = BatchSampler(range(rows), batch, drop_last=False)
        each = {len(BatchSamplerShard(batches, processes, index)) for index in range(processes)}
        arguments = SimpleNamespace(max_steps=-1, gradient_accumulation_steps=accumulation, num_train_epochs=3.0)
        trainer = SimpleNamespace(
            get_total_train_batch_size=lambda _: 0, get_sp_size=lambda: 1, num_examples=lambda _, rows=rows: rows
        )
        *_, total = Trainer.set_initial_training_values(trainer, arguments, [None] * each.pop())
        assert not each
        assert total == count_steps(rows, batch, processes, accumulation, 3.0).total
