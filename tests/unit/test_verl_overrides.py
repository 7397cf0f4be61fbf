"""Engine verl: what we ask of verl is what verl's own configuration has, value by value."""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from pydantic import ValidationError

from trainers.config import RunConfig, explain, parse
from trainers.verl.overrides import overrides, prompts_in_step, steps_of, word

# The wheel also brings packages named tests and scripts, so it lies beside the environment's own (see Makefile).
VERL = Path(sys.prefix) / "verl" / "verl" / "trainer" / "config"
HOSTILE = Path("/runs/a'; echo foo ${oc.env:HOME} =, [狼]\\")


def values(stage: str = "grpo", **changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = {
        "stage": stage,
        "engine": "verl",
        "name": "it's",
        "model": {"model_name_or_path": "/models/m", "adapter": "none"},
        "data": {"train_files": "x.jsonl"},
        "method": {"reward_functions": ["length"], "num_generations": 4},
        "parallel": {"launcher": "torchrun", "strategy": "fsdp", "num_nodes": 2, "processes_per_node": 4},
        "optim": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
    }
    for key, value in changes.items():
        *sections, last = key.split("__")
        place = config
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return config


def composed(run: RunConfig, adapter: str | None = None, held_out: int = 5) -> Any:
    if not VERL.is_dir():
        pytest.fail(f"there is no {VERL}: `make test` installs verl's wheel there", pytrace=False)
    words = overrides(run, HOSTILE, 3, "/models/m", adapter, 100, held_out)
    with initialize_config_dir(str(VERL), version_base=None):
        return compose("ppo_trainer", words)


def test_grpo_is_what_the_run_says_in_verls_own_configuration() -> None:
    run = parse(
        values(
            method__beta=0.04,
            method__epsilon=0.3,
            method__num_iterations=2,
            method__loss_type="dr_grpo",
            method__scale_rewards="none",
            method__verl__tensor_model_parallel_size=2,
            optim__learning_rate=2e-6,
            optim__warmup_steps=5,
            optim__num_train_epochs=2,
            precision__dtype="bf16",
            tracking__report_to=["swanlab"],
            parallel__offload="all",
        )
    )
    assert prompts_in_step(run) == 2 * 4 * 8 // 4
    assert steps_of(run, 100) == 2 * (100 // 16)
    made = composed(run)
    actor, rollout, trainer = made.actor_rollout_ref.actor, made.actor_rollout_ref.rollout, made.trainer
    assert (made.algorithm.adv_estimator, made.algorithm.norm_adv_by_std_in_grpo) == ("grpo", False)
    assert (made.data.train_batch_size, actor.ppo_mini_batch_size, rollout.n) == (16, 16, 4)
    assert (actor.ppo_micro_batch_size_per_gpu, actor.ppo_epochs) == (2, 2)
    assert (actor.use_kl_loss, actor.kl_loss_coef, made.algorithm.use_kl_in_reward) == (True, 0.04, False)
    assert (actor.clip_ratio, actor.clip_ratio_low, actor.clip_ratio_high) == (0.3, 0.3, 0.3)
    assert (actor.loss_agg_mode, actor.loss_scale_factor) == ("seq-mean-token-sum-norm", 512)
    assert (actor.optim.lr, actor.optim.lr_warmup_steps, actor.optim.lr_scheduler_type) == (2e-6, 5, "cosine")
    assert (actor.fsdp_config.dtype, rollout.dtype, actor.fsdp_config.param_offload) == ("bfloat16", "bfloat16", True)
    assert (rollout.name, rollout.tensor_model_parallel_size, rollout.response_length) == ("vllm", 2, 512)
    assert (trainer.nnodes, trainer.n_gpus_per_node, trainer.total_training_steps) == (2, 4, 12)
    assert (trainer.val_before_train, trainer.test_freq) == (True, 12)
    assert list(trainer.logger) == ["console", "file", "tensorboard", "swanlab"]
    assert trainer.experiment_name == "it's"
    # Paths arrive as they are, whatever is in them.
    assert trainer.default_local_dir == str(HOSTILE / "checkpoints")
    assert made.reward.custom_reward_function.path == str(HOSTILE / "verl" / "reward.py")
    variables = made.ray_kwargs.ray_init.runtime_env.env_vars
    metrics = str(HOSTILE / "verl" / "metrics-3.jsonl")
    assert str(variables.VERL_FILE_LOGGER_PATH).endswith(metrics)


def test_an_adapter_and_no_held_out_rows() -> None:
    run = parse(values(model={"model_name_or_path": "m", "lora": {"r": 8, "target_modules": ["q_proj", "v_proj"]}}))
    made = composed(run, adapter="/a", held_out=0)
    model = made.actor_rollout_ref.model
    assert (model.lora_rank, model.lora_alpha, list(model.target_modules)) == (8, 32, ["q_proj", "v_proj"])
    assert model.lora_adapter_path == "/a"
    # A constant rate has no warm-up in transformers, whatever optim.warmup_steps says.
    optim = composed(parse(values(optim__lr_scheduler_type="constant"))).actor_rollout_ref.actor.optim
    assert (optim.lr_warmup_steps, optim.lr_warmup_steps_ratio, optim.lr_scheduler_type) == (-1, 0.0, "constant")
    assert made.actor_rollout_ref.rollout.load_format == "safetensors"
    assert (made.trainer.val_before_train, made.trainer.test_freq) == (False, -1)
    assert (made.actor_rollout_ref.actor.use_kl_loss, made.actor_rollout_ref.actor.loss_agg_mode) == (
        False,
        "token-mean",
    )


def test_ppo_has_a_value_model_and_takes_the_kl_off_the_reward() -> None:
    run = parse(
        values(
            "ppo",
            method={"reward_functions": ["length"], "lam": 0.95, "kl_coef": 0.01, "cliprange": 0.1},
            method__verl__critic_learning_rate=3e-5,
            optim__max_steps=7,
        )
    )
    made = composed(run)
    assert (made.algorithm.adv_estimator, made.algorithm.lam) == ("gae", 0.95)
    assert (made.algorithm.use_kl_in_reward, made.algorithm.kl_ctrl.kl_coef) == (True, 0.01)
    assert (made.critic.optim.lr, made.critic.model.path, made.critic.ppo_micro_batch_size_per_gpu) == (
        3e-5,
        "/models/m",
        2,
    )
    assert (made.actor_rollout_ref.actor.clip_ratio, made.trainer.total_training_steps) == (0.1, 7)
    assert made.data.train_batch_size == 2 * 4 * 8


def test_a_word_that_verl_does_not_know_is_refused_by_its_configuration() -> None:
    with initialize_config_dir(str(VERL), version_base=None), pytest.raises(Exception, match="nonsense"):
        compose("ppo_trainer", ["actor_rollout_ref.actor.nonsense=1"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method__reward_model": "m"}, "method.reward_model"),
        ({"model__freeze": ["*.embed_tokens.*"]}, "model.freeze"),
        ({"method__scale_rewards": "batch"}, "method.scale_rewards batch"),
        ({"precision__dtype": "fp16"}, "precision.dtype fp16"),
        ({"optim__optim": "adafactor"}, "optim.optim adafactor"),
        ({"method__verl__tensor_model_parallel_size": 3}, "tensor_model_parallel_size 3 does not divide 8 GPUs"),
        ({"method__num_generations": 3}, "a step has 2 x 4 x 8 = 64 answers"),
        ({"method__verl__gpu_memory_utilization": "much"}, "should be a valid number"),
        ({"method__verl__rollot": "vllm"}, "unknown key, did you mean rollout?"),
    ],
)
def test_what_verl_does_not_do_is_said_before_anything_is_submitted(changes: dict[str, Any], said: str) -> None:
    asked = values(**changes)
    with pytest.raises(ValidationError) as caught:
        parse(asked)
    (line,) = explain(caught.value, asked)
    assert said in line


def test_every_string_passes_hydras_grammar(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("k: 1\n", encoding="utf-8")
    dice = random.Random(0)
    texts = [
        "",
        "null",
        "1",
        "true",
        "a'b",
        "a\\",
        "a\\'b",
        "${x}",
        "\\${x}",
        "a\nb",
        "[1,2]",
        '狼 "',
        "\\\\'",
        "$(x) #",
    ]
    texts += ["".join(dice.choice("\\\\'$${{}}ab \n,=[]\"") for _ in range(dice.randint(1, 9))) for _ in range(60)]
    with initialize_config_dir(str(tmp_path), version_base=None):
        for text in texts:
            assert compose("c", [f"k={word(text)}"]).k == text, (text, word(text))
        for value in (1, 1e-6, 0.5, True, False, None, ["a", "b,c"], [0.9, 0.999]):
            made = compose("c", [f"k={word(value)}"]).k
            assert (list(made) if isinstance(value, list) else made) == value


def test_the_wheel_is_the_version_that_the_overrides_are_written_for() -> None:
    (info,) = VERL.parents[2].glob("verl-*.dist-info")
    assert re.match(r"verl-0\.9\.", info.name)
