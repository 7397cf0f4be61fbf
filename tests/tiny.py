"""A whole tiny model and tiny runs for tests: made on the spot, in seconds, without a network."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

ROLES = ("seer", "wolf", "witch", "hunter", "villager")


def make_rows(count: int = 48, seed: int = 0) -> list[tuple[str, str]]:
    """Questions whose answer follows from the question, so that learning shows."""
    dice = random.Random(seed)
    rows = []
    for number in range(count):
        role = dice.choice(ROLES)
        rows.append((f"Player {number} is the {role}. What is player {number}?", f"Player {number} is a {role}."))
    return rows


def make_tiny_model(path: Path) -> Path:
    """Write a Qwen2 model with random weights (hidden 64, 2 layers) and its ChatML tokenizer into ``path``."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    texts = [" ".join(row) for row in make_rows(200)]
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=512, special_tokens=special, initial_alphabet=alphabet)
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=special[2], pad_token=special[0])
    fast.chat_template = CHATML
    fast.save_pretrained(path)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(fast),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    Qwen2ForCausalLM(config).save_pretrained(path)
    return path


def write_csv(path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("prompt", "response")) -> Path:
    """Write a CSV file with a header."""
    import csv

    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write a file of JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_run(run_dir: Path, model: Path, data: Path, **overrides: Any) -> Path:
    """Write ``run.yaml`` of a small SFT run into ``run_dir`` and return its path.

    ``overrides`` are dotted keys with two underscores for the dot: ``optim__max_steps=8``.
    """
    import yaml

    config: dict[str, Any] = {
        "stage": "sft",
        "model": {"model_name_or_path": str(model), "lora": {"r": 4, "lora_alpha": 8}},
        "data": {"train_files": [str(data)], "max_length": 128},
        "optim": {
            "learning_rate": 1e-2,
            "max_steps": 8,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 1,
        },
        "output": {"logging_steps": 1, "save_steps": 4},
    }
    for key, value in overrides.items():
        *sections, last = key.split("__")
        place = config
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / "run.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def make_tiny_encoder(path: Path) -> Path:
    """Write a BERT model with random weights (hidden 64, 2 layers) and its WordPiece tokenizer into ``path``."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(handle_chinese_chars=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    texts = [" ".join(row) for row in make_rows(200)]
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **names)
    fast.save_pretrained(path)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(fast),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        pad_token_id=0,
    )
    BertForMaskedLM(config).save_pretrained(path)
    return path
