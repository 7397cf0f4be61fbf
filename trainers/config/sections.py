"""The sections that every stage has: model, data, optimiser, hardware, precision, tracking, evaluation, output."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainers.config.section import Names, NoneOrMany, Section, Steps

Tracker = Literal["swanlab", "tensorboard", "wandb"]
Strategy = Literal["single", "ddp", "fsdp", "zero1", "zero2", "zero3"]
Offload = Literal["none", "optimizer", "all"]
Launcher = Literal["python", "torchrun", "accelerate", "deepspeed"]


class Lora(Section):
    """A LoRA adapter, in PEFT's words. Ignored when ``model.adapter_name_or_path`` brings its own."""

    r: int = Field(16, ge=1, description="Rank of the update matrices.")
    lora_alpha: int = Field(32, ge=1, description="Scale: the update is multiplied by lora_alpha / r.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the update. 0 is fastest.")
    target_modules: Names = Field(["all-linear"], description="Module names to adapt, or all-linear.")
    modules_to_save: Names = Field([], description="Modules trained whole beside the adapter, such as embed_tokens.")
    use_rslora: bool = Field(False, description="Scale by lora_alpha / sqrt(r), steadier at high ranks.")
    use_dora: bool = Field(False, description="Train magnitude and direction apart: better at low ranks, slower.")


class RopeScaling(Section):
    """How positions are stretched beyond the length that the model was trained on, in transformers' words."""

    rope_type: Literal["linear", "dynamic", "yarn"] = Field("yarn", description="How they are stretched.")
    factor: float = Field(gt=1, description="New length divided by the old one.")
    original_max_position_embeddings: int | None = Field(
        None, ge=1, description="The old length; empty: the model's max_position_embeddings."
    )


class Model(Section):
    """Which weights, and which part of them learns."""

    model_name_or_path: str = Field(min_length=1, description="A directory, or a name on the hub.")
    revision: str | None = Field(None, description="Branch, tag or commit on the hub.")
    trust_remote_code: bool = Field(False, description="Run Python code that comes with the model.")
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] = Field("sdpa", description="Attention kernel.")
    adapter: Literal["lora", "none"] = Field("lora", description="lora, or none to train the weights themselves.")
    adapter_name_or_path: str | None = Field(
        None, description="An adapter to go on training: a directory, or a run whose adapter is meant."
    )
    lora: Lora = Lora()
    quantization: Literal["none", "4bit", "8bit"] = Field(
        "none", description="Frozen weights in 4 bits (NF4, QLoRA) or 8 bits, by bitsandbytes; needs adapter lora."
    )
    double_quant: bool = Field(True, description="With 4bit: quantise the scales too, 0.4 bits a weight less.")
    freeze: Names = Field([], description="Patterns such as *.embed_tokens.*: parameters that stay as they are.")
    train_only: Names = Field([], description="Patterns: nothing but these parameters learns. Needs adapter none.")
    rope_free_layers: list[Annotated[int, Field(ge=0)]] = Field(
        [], description="Layers, counted from 0, whose attention sees no positions. Kept in the model's config."
    )
    rope_theta: float | None = Field(None, gt=0, description="Base of the rotary embedding, in place of the model's.")
    rope_scaling: RopeScaling | None = None
    chat_template: str | None = Field(
        None, description="A shipped template's name or a Jinja file, in place of the tokenizer's template."
    )
    gradient_checkpointing: bool = Field(False, description="Recompute activations: less memory, about 20 % slower.")
    use_liger_kernel: bool = Field(False, description="Fused Triton kernels of liger-kernel; needs a GPU.")
    torch_compile: bool = Field(False, description="Compile the model; pays in long runs of models below 3B.")

    @model_validator(mode="after")
    def _consistent(self) -> Model:
        if self.adapter == "none" and self.adapter_name_or_path:
            raise ValueError("adapter none trains all weights and cannot continue adapter_name_or_path: drop one")
        if self.adapter == "none" and self.quantization != "none":
            raise ValueError(f"quantization {self.quantization} freezes the weights: it needs adapter lora")
        if self.adapter == "lora" and self.train_only:
            raise ValueError("train_only chooses among the model's own weights: it needs adapter none")
        if self.train_only and self.freeze:
            raise ValueError("train_only and freeze exclude each other: drop one of them")
        return self


class Data(Section):
    """Which rows, and how they become text."""

    train_files: Names = Field(
        min_length=1, description="Files (CSV, JSONL, JSON, parquet, txt), saved data sets, or names on the hub."
    )
    eval_files: Names = Field([], description="Held-out rows of the same kind.")
    validation_split: float = Field(0.0, ge=0, lt=1, description="Share of the training rows held out.")
    dataset_config_name: str | None = Field(None, description="Configuration of a data set of the hub.")
    dataset_split: str = Field("train", description="Split of data sets of the hub and of saved ones.")
    eval_dataset_split: str = Field("test", description="The same for eval_files.")
    probabilities: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [], description="Share of each of train_files in the mixture; empty: one after the other, each row once."
    )
    format: Literal["auto", "prompt_response", "instruction", "input_output", "messages"] = Field(
        "auto", description="Stage sft: shape of a row; auto decides from the columns, as all other stages do."
    )
    columns: dict[str, str] = Field({}, description="Our column name: the name in the file.")
    text_fields: Names = Field(
        ["text", "content"],
        min_length=1,
        description="Stages on plain text: the first of these columns that a row has is its text.",
    )
    system: str | None = Field(None, description="Stages on conversations: system message for rows that have none.")
    skip_bad_rows: bool = Field(False, description="Leave rows out that cannot be used, counted, instead of stopping.")
    max_length: int = Field(1024, ge=8, description="Tokens of a row or, where rows are packed, of a block.")
    max_train_samples: int | None = Field(None, ge=1, description="Use at most this many training rows.")
    max_eval_samples: int | None = Field(None, ge=1, description="Use at most this many held-out rows.")
    streaming: bool = Field(False, description="Stage cpt: read while training, nothing stored; needs max_steps.")
    cache_dir: str | None = Field(None, description="Where tokenised rows are kept; empty: beside the runs.")

    @property
    def holds_out(self) -> bool:
        """Whether there are rows to measure on."""
        return bool(self.eval_files or self.validation_split)

    @model_validator(mode="after")
    def _consistent(self) -> Data:
        if self.eval_files and self.validation_split:
            raise ValueError("eval_files and validation_split exclude each other: drop one of them")
        if self.probabilities and len(self.probabilities) != len(self.train_files):
            raise ValueError(
                f"{len(self.probabilities)} probabilities for {len(self.train_files)} train_files: one for each"
            )
        if self.probabilities and abs(sum(self.probabilities) - 1) > 1e-6:
            raise ValueError(f"probabilities add up to {sum(self.probabilities):g}, not to 1")
        if self.streaming and self.validation_split:
            raise ValueError("a stream cannot be split: name held-out rows in eval_files")
        return self


class Optim(Section):
    """Optimiser, batch and length of training, in the words of transformers' TrainingArguments."""

    learning_rate: float = Field(1e-4, gt=0, description="The learning rate at its peak.")
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = Field(
        "cosine", description="How the learning rate goes down again."
    )
    warmup_steps: float = Field(0.03, ge=0, description="Steps in which it rises; below 1 a share of all.")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay, as AdamW has it.")
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's memory of the gradient.")
    adam_beta2: float = Field(0.999, ge=0, lt=1, description="AdamW's memory of the squared gradient.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients above it are scaled down to it.")
    optim: Literal[
        "adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit", "adafactor", "sgd"
    ] = Field("adamw_torch_fused", description="The optimiser; 8bit and paged are those of bitsandbytes.")
    num_train_epochs: float = Field(3.0, gt=0, description="Passes over the training rows.")
    max_steps: Steps = Field(-1, ge=-1, description="Optimiser steps; -1 means as num_train_epochs says.")
    train_batch_size: int | None = Field(
        None, ge=1, description="Rows of one optimiser step, over all processes; the two below are reckoned from it."
    )
    per_device_train_batch_size: int = Field(1, ge=1, description="Rows a process takes at once.")
    per_device_eval_batch_size: int = Field(8, ge=1, description="Held-out rows a process takes at once.")
    gradient_accumulation_steps: int = Field(8, ge=1, description="Batches of each process in one optimiser step.")
    dataloader_num_workers: int = Field(0, ge=0, description="Extra processes that prepare batches.")
    seed: int = Field(42, ge=0, description="For weights, order of the rows and the held-out share.")


class Parallel(Section):
    """How the processes of this run share the work. Comes from the profile."""

    launcher: Launcher = Field("python", description="What starts the processes.")
    strategy: Strategy = Field("single", description="How processes share weights, gradients and states.")
    offload: Offload = Field("none", description="What lies in host memory: nothing, optimiser states, or all.")
    num_nodes: int = Field(1, ge=1, description="Nodes.")
    processes_per_node: int = Field(1, ge=1, description="Processes, which is GPUs, on each node.")
    ddp_timeout: int = Field(1800, ge=1, description="Seconds until a silent process counts as lost.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto takes a GPU where one is visible; cuda fails without one; cpu never takes one."
    )

    @property
    def world_size(self) -> int:
        """Processes in all."""
        return self.num_nodes * self.processes_per_node

    @property
    def deepspeed(self) -> bool:
        """Whether DeepSpeed holds the states."""
        return self.strategy.startswith("zero")

    @model_validator(mode="after")
    def _consistent(self) -> Parallel:
        if problem := parallel_problem(
            self.launcher, self.strategy, self.offload, self.world_size, cpu=self.device == "cpu"
        ):
            raise ValueError(problem)
        return self


def parallel_problem(
    launcher: Launcher, strategy: Strategy, offload: Offload, processes: int, *, cpu: bool
) -> str | None:
    """What does not fit together, in words; None when all does. Profiles and run.yaml ask it alike."""
    zero = strategy.startswith("zero")
    if strategy == "single" and processes > 1:
        return f"strategy single is for one process, this asks for {processes}: use ddp, fsdp or zero1 to zero3"
    if launcher == "python" and (processes > 1 or zero):
        return "launcher python starts one plain process: use torchrun, accelerate or deepspeed"
    if launcher == "deepspeed" and not zero:
        return f"launcher deepspeed is for strategies zero1 to zero3, not {strategy}: use torchrun"
    if offload == "optimizer" and not zero:
        return f"offload optimizer needs strategy zero1, zero2 or zero3, not {strategy}"
    if strategy == "fsdp" and (cpu or processes == 1):
        return "strategy fsdp shares one model out over several GPUs: use single for one, ddp, zero2 or zero3 without"
    if offload == "all" and strategy not in ("zero3", "fsdp"):
        return f"offload all moves the weights too, which needs strategy zero3 or fsdp, not {strategy}"
    return None


class Precision(Section):
    """Number formats. Weights of an fp16 run are kept in fp32 and scaled, never trained in fp16."""

    dtype: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="Number format of training.")
    tf32: bool = Field(True, description="Let fp32 products use the tensor cores (Ampere and newer).")


class Tracking(Section):
    """Where metrics go besides the run directory. Keys come from the environment, never from here."""

    report_to: Annotated[list[Tracker], NoneOrMany] = Field(
        [], description="Trackers, several at once; `none` for none."
    )
    project: str = Field("clusterctl", description="Project in the trackers.")
    swanlab_mode: Literal["cloud", "local", "offline"] = Field(
        "local", description="cloud needs SWANLAB_API_KEY; the others write below the run directory."
    )
    swanlab_workspace: str | None = Field(None, description="Workspace in SwanLab.")
    wandb_mode: Literal["online", "offline"] = Field("online", description="online needs WANDB_API_KEY.")
    wandb_entity: str | None = Field(None, description="Team or user in W&B.")


class Eval(Section):
    """Held-out measurements. Without held-out rows nothing of this happens."""

    eval_steps: int | None = Field(None, ge=1, description="Evaluate every so many steps; empty: start and end only.")
    samples: int = Field(
        0, ge=0, description="Held-out questions answered in words, before and after; stages on answers."
    )
    max_new_tokens: int = Field(128, ge=1, description="Length of those answers.")
    metric_for_best_model: str | None = Field(
        None, description="Keep the checkpoint where this held-out metric is best, and end with it, such as eval_loss."
    )
    greater_is_better: bool = Field(False, description="Whether more of that metric is better.")
    early_stopping_patience: int | None = Field(
        None, ge=1, description="End after so many evaluations without improvement of metric_for_best_model."
    )
    early_stopping_threshold: float = Field(
        0.0, ge=0, description="Less than this is no improvement: neither for patience nor as the best."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Eval:
        if self.early_stopping_patience and not (self.metric_for_best_model and self.eval_steps):
            raise ValueError("early_stopping_patience needs metric_for_best_model and eval_steps")
        if self.metric_for_best_model and not self.eval_steps:
            raise ValueError("metric_for_best_model needs eval_steps")
        return self


class Output(Section):
    """What is written into the run directory, and how often."""

    logging_steps: int = Field(10, ge=1, description="Steps between two lines of metrics.")
    save_steps: int = Field(200, ge=1, description="Steps between two checkpoints.")
    save_total_limit: int | None = Field(2, ge=1, description="Complete checkpoints that are kept; empty for all.")
