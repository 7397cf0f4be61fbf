"""What our trainers do not hold: copies of weights that nothing needs any more, and a second set of gradients."""

from __future__ import annotations

import json
import subprocess
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback

from tests.tiny import make_rows
from tests.train.conftest import environment, torchrun
from tests.train.here import config as configure
from tests.train.here import trainer_of
from trainers.config import RunConfig


class Casts(TorchDispatchMode):
    """Counts how often each weight is copied to bf16, and keeps an eye on the copies."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._names = {weight.data_ptr(): name for name, weight in model.named_parameters()}
        self.counts = Counter[str]()
        self._copies: list[weakref.ref[torch.UntypedStorage]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run it; a copy of a weight is noted."""
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and args[0].data_ptr() in self._names:
            self.counts[self._names[args[0].data_ptr()]] += 1
            self._copies.append(weakref.ref(out.untyped_storage()))
        return out

    @property
    def alive(self) -> int:
        """Copies that somebody holds."""
        return sum(copy() is not None for copy in self._copies)


class Storages(TrainerCallback):
    """After every batch: how many pieces of memory the gradients lie in, and all bytes of these."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def on_substep_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """A batch was added up."""
        found = [weight.grad.untyped_storage() for weight in model.parameters() if weight.requires_grad]
        pieces = {one.data_ptr(): one.nbytes() for one in found}
        self.seen.append((len(pieces), sum(pieces.values())))

    on_pre_optimizer_step = on_substep_end


def _rows(folder: Path) -> Path:
    path = folder / "rows.jsonl"
    lines = [json.dumps({"prompt": question, "response": answer}) for question, answer in make_rows(24)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def small(start: Path, rows: Path, **sections: Any) -> RunConfig:
    """A run of all weights in bf16, over 12 rows; as many are held out."""
    values: dict[str, Any] = {
        "data": {"train_files": [str(rows)], "max_length": 64, "validation_split": 0.5},
        "precision": {"dtype": "bf16"},
        "parallel": {"device": "cpu"},
        "optim": {"max_steps": 1, "gradient_accumulation_steps": 1},
    }
    return configure(start, **(values | sections))


def _linear(counts: Counter[str]) -> set[int]:
    return {counts[name] for name in counts if ".layers." in name}


@pytest.mark.parametrize("checkpointing", [True, False])
def test_copies_of_weights_go_with_their_layer(checkpointing: bool, tiny_model: Path, tmp_path: Path) -> None:
    wanted = {"adapter": "none", "gradient_checkpointing": checkpointing}
    trainer = trainer_of(small(tiny_model, _rows(tmp_path), model=wanted), tmp_path)
    linear = [one for one in trainer.model.model.layers.modules() if isinstance(one, torch.nn.Linear)]
    layers = sum(len(list(one.parameters())) for one in linear)
    casts, alive = Casts(trainer.model), []
    trainer.model.model.register_forward_hook(lambda *_: alive.append(casts.alive))
    with casts:
        trainer.train()
    # Without checkpointing the backward pass needs those of weights, not of biases.
    assert alive[0] == (0 if checkpointing else len(linear))
    # And no weight is copied more often than it is used: with checkpointing that is twice.
    assert len([name for name in casts.counts if ".layers." in name]) == layers
    assert _linear(casts.counts) == {2 if checkpointing else 1}
    casts.counts.clear()
    before = trainer.model.forward
    with casts:
        trainer.evaluate()
    # 12 rows are several batches: where no gradient needs the room, copies are made once.
    assert len(alive) >= 3 and _linear(casts.counts) == {1}
    assert trainer.model.forward == before


TWO = """
import json, sys
from pathlib import Path
from tests.train.test_memory_held import Storages, small
from tests.train.here import trainer_of
model, rows, folder = map(Path, sys.argv[1:])
parallel = {"device": "cpu", "launcher": "torchrun", "strategy": "ddp", "processes_per_node": 2}
optim = {"max_steps": 3, "gradient_accumulation_steps": 2}
trainer = trainer_of(small(model, rows, model={"adapter": "none"}, parallel=parallel, optim=optim), folder)
seen = Storages()
trainer.add_callback(seen)
trainer.train()
if trainer.is_world_process_zero():
    (folder / "seen.json").write_text(json.dumps([seen.seen, [w.numel() for w in trainer.model.parameters()]]))
"""


def test_ddp_has_one_set_of_gradients(tiny_model: Path, tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO, encoding="utf-8")
    argv = [*torchrun(2), str(script), str(tiny_model), str(_rows(tmp_path)), str(tmp_path)]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    seen, counts = json.loads((tmp_path / "seen.json").read_text())
    # Several gradients in one piece: these are DDP's buckets, which are there anyway.
    assert len(seen) == 6 and len(counts) > 20
    assert all(pieces <= 3 and size == 4 * sum(counts) for pieces, size in seen), seen
