"""What one member of a pipeline hands to the next: pure, decided from the configuration of the one before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterctl.errors import UsageProblem
from trainers.config import RunConfig

_WITH_THE_BASE = ("model_name_or_path", "revision", "rope_free_layers", "rope_theta", "rope_scaling")
"""What an adapter was trained on and does not carry itself. A model that is saved whole does."""

_ENDS = {
    "mlm": "an encoder, which only mlm goes on training",
    "reward": "a reward model, which rates answers and gives none",
}
"""Stages whose result is no model for the stages after them."""


@dataclass(frozen=True)
class Start:
    """What ``member`` starts from: what the member ``name`` is going to leave in ``final_model``."""

    member: str
    name: str
    before: RunConfig
    final_model: Path
    start: Start | None = None
    """What that member started from in its turn."""

    @property
    def planned(self) -> frozenset[str]:
        """Directories that are there when the member begins, and not yet."""
        return frozenset({str(self.final_model)}) | (self.start.planned if self.start else frozenset())

    @property
    def base(self) -> str:
        """The model at the beginning of the line, which exists."""
        return self.start.base if self.start else self.before.model.model_name_or_path

    def model(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The keys of the section ``model`` that the start decides, for the member with these ``values`` so far.

        After LoRA the same base model and the adapter to go on with; after all weights the saved model.

        Raises:
            UsageProblem: the one before leaves nothing that this one can start from.
        """
        said = values.get("model")
        said = said if isinstance(said, Mapping) else {}
        self._check(str(values.get("stage")), said)
        trusted = {"trust_remote_code": self.before.model.trust_remote_code or said.get("trust_remote_code", False)}
        if self.before.model.adapter == "none":
            whole = {"model_name_or_path": str(self.final_model), "revision": None, "adapter_name_or_path": None}
            return whole | trusted
        base = {key: value for key, value in self.before.model.model_dump(mode="json").items() if key in _WITH_THE_BASE}
        template = {"chat_template": said.get("chat_template") or self.before.model.chat_template}
        return base | trusted | template | {"adapter_name_or_path": str(self.final_model)}

    def _check(self, stage: str, said: Mapping[str, Any]) -> None:
        member, before = self.member, self.before.stage
        other = f"write `starts_from: none` at {member} for its recipe's own model, or name another member"
        if (before in _ENDS or stage == "mlm") and not before == stage == "mlm":
            left = _ENDS.get(before, f"a model of stage {before}, and mlm trains an encoder")
            raise UsageProblem(f"{member} cannot start from {self.name}: that leaves {left}", hint=other)
        if stage == "reward" and self.before.model.adapter == "lora":
            raise UsageProblem(
                f"{member} cannot start from {self.name}: a reward model takes no adapter of a model that writes",
                hint=f"set model.adapter of {self.name} to none; or {other}",
            )
        if self.before.model.adapter == "lora" and said.get("adapter", "lora") == "none":
            raise UsageProblem(
                f"{member} trains all weights (model.adapter none), but {self.name} before it leaves an adapter,"
                " which would have to be merged first",
                hint=f"set model.adapter to lora for both, or to none for both; or {other}",
            )
