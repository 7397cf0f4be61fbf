"""The model before and after training, on rows that it did not train on: in numbers and in words."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import TYPE_CHECKING, Any

from accelerate.utils import gather_object
from transformers import TrainerCallback

from trainers.config import Eval
from trainers.data.kinds import Example
from trainers.data.template import ChatTemplate
from trainers.model.generate import answer
from trainers.runtime.autocast import weights_cast_once
from trainers.runtime.files import read_json, write_json

if TYPE_CHECKING:
    from trainers.run import Run


class HeldOut(TrainerCallback):
    """Measures when training begins from nothing, and once more when ``after`` is called.

    ``examples`` are the held-out rows, without which nothing is measured; those that are conversations are also
    answered in words.
    """

    def __init__(self, run: Run, config: Eval, examples: Collection[Any]) -> None:
        self.trainer: Any = None
        self._run = run
        self._config = config
        self._examples = examples
        self._last_step = -1

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the model as it came. A resumed run did so when it began."""
        if self._examples and state.global_step == 0:
            self._run.progress.update(phase="evaluating", max_steps=state.max_steps)
            # Nothing comes back when the run was asked to stop meanwhile.
            if self.trainer.evaluate():
                self._answer("before")

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remember that this step is measured."""
        self._last_step = state.global_step

    def after(self, *, again: bool = False) -> None:
        """Measure the result, unless its last step was a measured one; ``again`` where other weights were loaded."""
        if not self._examples:
            return
        self._run.progress.update(phase="evaluating")
        if again or self._last_step != self.trainer.state.global_step:
            self.trainer.evaluate()
        self._answer("after")

    def _answer(self, when: str) -> None:
        """Ask the first held-out questions, shared out over the processes, and keep the answers."""
        asked = [row for row in islice(self._examples, self._config.samples) if isinstance(row, Example)]
        if not asked:
            return
        trainer = self.trainer
        rank, processes = trainer.args.process_index, trainer.args.world_size
        end = ChatTemplate(trainer.processing_class).end
        mine = []
        # All processes generate equally often: where weights are shared out, each needs all others for every token.
        for start in range(0, len(asked), processes):
            index = min(start + rank, len(asked) - 1)
            question = asked[index].messages[:-1]
            with weights_cast_once(trainer):
                text = answer(trainer.model, trainer.processing_class, question, end, self._config.max_new_tokens)
            mine.append((index, text))
        said = dict(gather_object(mine))
        if not trainer.is_world_process_zero():
            return
        path = self._run.folder / "samples.json"
        earlier = {row["question"]: row for row in read_json(path).get("samples", [])}
        rows = []
        for index, example in enumerate(asked):
            question = example.messages[-2]["content"] if len(example.messages) > 1 else ""
            row = {"question": question, "expected": example.messages[-1]["content"], "before": None, "after": None}
            rows.append({**row, **earlier.get(question, {}), when: said[index]})
        write_json(path, {"samples": rows})
