"""The section ``method``: what only one stage knows. Names and defaults are TRL's where TRL has them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainers.config.section import Names, OneOrMany, Section
from trainers.rewards import name_problem


class CptMethod(Section):
    """Continued pre-training: the next token of plain text."""

    packing: bool = Field(True, description="Fill blocks of data.max_length with whole or cut documents, kept apart.")
    append_eos: bool = Field(True, description="End every document with the tokenizer's end token.")


class MlmMethod(Section):
    """Masked language modelling of an encoder, as in BERT (https://arxiv.org/abs/1810.04805)."""

    mlm_probability: float = Field(0.15, gt=0, lt=1, description="Share of the tokens to be guessed.")
    whole_word: bool = Field(False, description="Mask all tokens of a word together.")


class SftMethod(Section):
    """Supervised fine-tuning: loss on the assistant's words only."""

    packing: bool = Field(False, description="Several rows in one of data.max_length tokens, kept apart.")
    neftune_noise_alpha: float | None = Field(
        None, gt=0, description="Noise on the embeddings while training (https://arxiv.org/abs/2310.05914), about 5."
    )


class DpoMethod(Section):
    """Direct preference optimisation (https://arxiv.org/abs/2305.18290) on TRL's DPOTrainer."""

    beta: float = Field(0.1, gt=0, description="How much leaving the reference costs.")
    loss_type: Annotated[
        list[
            Literal[
                "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot",
                "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
            ]
        ],
        Field(min_length=1),
        OneOrMany,
    ] = Field(["sigmoid"], description="TRL's losses; several are added with loss_weights.")  # fmt: skip
    loss_weights: list[float] = Field([], description="A weight for each of loss_type; empty: 1 each.")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="Share of the pairs believed to be the wrong way.")
    precompute_ref_log_probs: bool = Field(
        False, description="Score all pairs with the reference before training: then it needs no memory while training."
    )
    kl_prompts: int = Field(
        8, ge=0, description="Held-out pairs on whose chosen answers every evaluation measures the exact KL."
    )

    @model_validator(mode="after")
    def _consistent(self) -> DpoMethod:
        losses = set(self.loss_type)
        if len(losses) < len(self.loss_type):
            raise ValueError("loss_type names a loss twice: use loss_weights")
        if self.loss_weights and len(self.loss_weights) != len(self.loss_type):
            raise ValueError(
                f"{len(self.loss_weights)} loss_weights for {len(self.loss_type)} in loss_type: one for each"
            )
        smoothed = losses & {"exo_pair", "robust", "aot", "aot_unpaired"}
        if "exo_pair" in losses and not self.label_smoothing:
            raise ValueError("loss_type exo_pair needs label_smoothing above 0, such as 0.001")
        if self.label_smoothing and not smoothed:
            raise ValueError("label_smoothing is known to loss_type robust, exo_pair, aot and aot_unpaired alone")
        return self


class KtoMethod(Section):
    """Kahneman-Tversky optimisation (https://arxiv.org/abs/2402.01306) on TRL's KTOTrainer: single rated answers."""

    beta: float = Field(0.1, gt=0, description="How much leaving the reference costs.")
    loss_type: Literal["kto", "apo_zero_unpaired"] = Field("kto", description="TRL's losses.")
    desirable_weight: float = Field(1.0, gt=0, description="Weight of the good answers.")
    undesirable_weight: float = Field(1.0, gt=0, description="Weight of the bad answers.")


class RewardMethod(Section):
    """A reward model from preferences (Bradley-Terry) on TRL's RewardTrainer."""

    center_rewards_coefficient: float | None = Field(
        None, ge=0, description="Pulls the mean reward to 0; 0.01 is usual."
    )


class Rollout(Section):
    """What all stages share that train on answers that the model itself generates."""

    num_generations: int = Field(
        8, ge=2, description="Answers to each prompt; a batch of all processes holds whole groups."
    )
    max_completion_length: int = Field(512, ge=1, description="Tokens of an answer.")
    temperature: float = Field(1.0, gt=0, description="Temperature of the sampling.")
    top_p: float = Field(1.0, gt=0, le=1, description="Sample among the likeliest tokens of this share.")
    reward_functions: Names = Field(
        [], description="Shipped names, or FILE.py:FUNCTION called as TRL calls it (completions, **columns)."
    )
    reward_model: str | None = Field(
        None, description="A sequence classifier that rates answers: directory or hub name."
    )
    reward_weights: list[float] = Field([], description="A weight for each reward, the model's last; empty: 1 each.")
    use_vllm: bool = Field(False, description="Generate with vLLM in the same process; needs a GPU.")

    @model_validator(mode="after")
    def _rewarded(self) -> Rollout:
        for name in self.reward_functions:
            if problem := name_problem(name):
                raise ValueError(problem)
        rewards = len(self.reward_functions) + bool(self.reward_model)
        if not rewards:
            raise ValueError("needs reward_functions or reward_model: nothing says which answer is good")
        if self.reward_weights and len(self.reward_weights) != rewards:
            raise ValueError(f"{len(self.reward_weights)} reward_weights for {rewards} rewards: one for each")
        return self


class Verl(Section):
    """What the engine verl asks for beyond the rest (https://github.com/verl-project/verl). Batches are those of
    the section optim: one optimiser step takes as many answers as it would with the engine trl."""

    rollout: Literal["vllm", "sglang", "trtllm"] = Field("vllm", description="What generates; verl has no hf rollout.")
    max_prompt_length: int = Field(
        1024, ge=1, description="Tokens of a prompt, for data.max_length; longer are left out."
    )
    tensor_model_parallel_size: int = Field(1, ge=1, description="GPUs that share one generating model.")
    gpu_memory_utilization: float = Field(0.6, gt=0, lt=1, description="Share of a GPU for the generating model.")
    critic_learning_rate: float = Field(1e-5, gt=0, description="ppo: learning rate of the value model.")
    ray_start_timeout: int = Field(300, ge=1, description="Seconds until all nodes have to be part of Ray.")


class GrpoMethod(Rollout):
    """Group relative policy optimisation (https://arxiv.org/abs/2402.03300) on TRL's GRPOTrainer, or on verl."""

    beta: float = Field(0.0, ge=0, description="Weight of the KL to the reference; 0 needs no reference.")
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo"] = Field("dapo", description="How token losses are averaged.")
    epsilon: float = Field(0.2, gt=0, description="Clipping of the ratio of new and old probability.")
    num_iterations: int = Field(1, ge=1, description="Optimiser steps on the same answers.")
    scale_rewards: Literal["group", "batch", "none"] = Field(
        "group", description="What rewards are divided by: a deviation."
    )
    verl: Verl = Verl()


class RlooMethod(Rollout):
    """REINFORCE leave one out (https://arxiv.org/abs/2402.14740) on TRL's RLOOTrainer."""

    beta: float = Field(0.05, ge=0, description="Weight of the KL to the reference, taken off the reward.")
    epsilon: float = Field(0.2, gt=0, description="Clipping of the ratio of new and old probability.")
    num_iterations: int = Field(1, ge=1, description="Optimiser steps on the same answers.")


class PpoMethod(Rollout):
    """Proximal policy optimisation with a value model (https://arxiv.org/abs/1707.06347), on verl alone."""

    num_generations: int = Field(1, ge=1, description="Answers to each prompt.")
    gamma: float = Field(1.0, gt=0, le=1, description="Discount of later rewards.")
    lam: float = Field(1.0, gt=0, le=1, description="λ of the generalised advantage estimation.")
    cliprange: float = Field(0.2, gt=0, description="Clipping of the ratio of new and old probability.")
    kl_coef: float = Field(0.001, ge=0, description="Weight of the KL to the reference, taken off the reward.")
    verl: Verl = Verl()


class StagedMethod(CptMethod):
    """Two-stage training on plain text: the RoPE-free layers alone, then all."""
