"""What the engine verl cannot do, said before anything is submitted. Hydra, which configures it, checks no types."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainers.config import RunConfig


def verl_problem(run: RunConfig) -> str | None:
    """What of this configuration verl does not know, in words; None when all will be as it says."""
    model, method, parallel = run.model, run.method, run.parallel
    asked = {
        "model.revision": model.revision,
        f"model.attn_implementation {model.attn_implementation}": model.attn_implementation != "sdpa",
        "model.quantization": model.quantization != "none",
        "model.freeze": model.freeze,
        "model.train_only": model.train_only,
        "model.rope_free_layers": model.rope_free_layers,
        "model.rope_theta": model.rope_theta,
        "model.rope_scaling": model.rope_scaling,
        "model.chat_template": model.chat_template,
        "model.torch_compile": model.torch_compile,
        "model.lora.lora_dropout": model.adapter == "lora" and model.lora.lora_dropout,
        "model.lora.use_rslora": model.adapter == "lora" and model.lora.use_rslora,
        "model.lora.use_dora": model.adapter == "lora" and model.lora.use_dora,
        "model.lora.modules_to_save": model.adapter == "lora" and model.lora.modules_to_save,
        "method.reward_model": method.reward_model,
        "method.use_vllm": method.use_vllm,
        "method.scale_rewards batch": getattr(method, "scale_rewards", "") == "batch",
        "precision.dtype fp16": run.precision.dtype == "fp16",
        "optim.lr_scheduler_type linear": run.optim.lr_scheduler_type == "linear",
        f"optim.optim {run.optim.optim}": run.optim.optim not in ("adamw_torch", "adamw_torch_fused"),
        "eval.samples": run.eval.samples,
        "eval.metric_for_best_model": run.eval.metric_for_best_model,
    }
    unknown = [name for name, value in asked.items() if value]
    if unknown:
        return f"engine verl does not know {', '.join(unknown)}: leave that out, or use engine trl"
    if parallel.world_size % method.verl.tensor_model_parallel_size:
        return (
            f"method.verl.tensor_model_parallel_size {method.verl.tensor_model_parallel_size} does not divide "
            f"{parallel.world_size} GPUs"
        )
    return None
