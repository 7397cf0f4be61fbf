"""Causes in the training itself: numbers, what learns, data, model and checkpoints."""

from __future__ import annotations

from trainers.failures.cause import Cause, sign

CAUSES = (
    Cause(
        "loss_not_finite",
        "the loss or the gradient is no finite number",
        "a third of optim.learning_rate, more optim.warmup_steps, optim.max_grad_norm 1.0; bf16 in place of fp16",
        signs=(
            sign("the run has diverged"),
            sign(
                "not finite",
                "non-finite",
                "nonfinite",
                # No words of a data set, which may stand in a log too.
                pattern=r"^[^\"']*\b(loss|[Gg]radients?|grad_norm|norm)\b.{0,60}\b(not|non)-? ?finite",
            ),
            sign("'grad_norm': nan", pattern=r"'loss': '?0(\.0+)?'?,.*'grad_norm': nan"),
            sign("loss is nan", "Loss is nan", "loss is NaN", "Loss is NaN", "loss is inf", "loss: nan, stopping"),
            sign(
                "returned nan values", "contains nan", "contains NaN", pattern=r"(RuntimeError|ValueError).*(nan|NaN)"
            ),
            sign("'loss': nan", "'loss': inf", '"loss": NaN', '"loss": Infinity'),
            sign("probability tensor contains either"),
        ),
    ),
    Cause(
        "fp16_scaler_minimum",
        "fp16 overflows at every step: the loss scale cannot go lower",
        "--set profile.dtype=bf16 (Ampere and newer), or a lower optim.learning_rate",
        signs=(
            sign("Current loss scale already at minimum"),
            sign("Minimum loss scale reached"),
        ),
    ),
    Cause(
        "no_inf_checks",
        "nothing that the fp16 scaler watches has a gradient: no weight learns",
        "an adapter must be loaded to be trained (is_trainable=True) and weights of an fp16 run be kept in fp32; do not"
        " switch fp16 off to hide it: the run would train nothing",
        signs=(sign("No inf checks were recorded"),),
    ),
    Cause(
        "unscale_fp16",
        "the weights that learn are fp16, which the fp16 scaler refuses",
        "load them in fp32 (precision.dtype=fp16 does so here) or use bf16",
        signs=(sign("Attempting to unscale FP16 gradients"),),
    ),
    Cause(
        "nothing_trainable",
        "no weight learns",
        "check model.adapter, model.freeze and model.train_only: `clusterctl plan` shows how many parameters learn",
        signs=(
            sign("does not require grad and does not have a grad_fn"),
            sign("optimizer got an empty parameter list"),
            sign("no weight of this model is trainable"),
            sign("the gradient is zero: this run would train nothing"),
            sign(
                "No trainable parameters",
                "no trainable parameters",
                pattern=r"(Error|error).*[Nn]o trainable parameters",
            ),
        ),
    ),
    Cause(
        "tokenizer_mismatch",
        "tokenizer and model do not belong together",
        "take both from the same directory; after adding tokens the model's embeddings must be enlarged as well",
        signs=(
            sign("index out of range in self"),
            sign("error: the tokenizer of"),
        ),
    ),
    Cause(
        "weights_mismatch",
        "weights on disk do not fit the model",
        "check that model.model_name_or_path and the adapter or checkpoint are of the same model and size",
        signs=(
            sign("size mismatch for", pattern=r"size mismatch for \S+"),
            sign("Error(s) in loading state_dict"),
            sign("Missing key(s) in state_dict"),
        ),
    ),
    Cause(
        "torn_checkpoint",
        "a checkpoint or weight file is damaged or half written",
        "`clusterctl resume {run}` takes the newest complete checkpoint; for model weights: fetch them again",
        policy="retry",
        signs=(
            sign("PytorchStreamReader failed"),
            sign(
                "Error while deserializing header",
                "HeaderTooLarge",
                "InvalidHeaderDeserialization",
                "MetadataIncompleteBuffer",
            ),
            sign("invalid load key", pattern=r"UnpicklingError: invalid load key"),
            sign("Ran out of input", pattern=r"EOFError: Ran out of input"),
            sign("unexpected EOF, expected"),
            sign("Unable to load weights from pytorch checkpoint file"),
            sign("heckpoint", pattern=r"([Ee]rror|Exception).*[Cc]heckpoint.{0,80}(corrupt|incomplete|truncated|torn)"),
        ),
    ),
    Cause(
        "chat_template_missing",
        "the tokenizer has no chat template",
        "--set model.chat_template=qwen2_chatml, or the one that the model was trained with",
        signs=(
            sign("chat_template is not set"),
            sign("the tokenizer has no chat template"),
        ),
    ),
    Cause(
        "data",
        "a row or file of the data cannot be used",
        "mend the row that the line names, or --set data.skip_bad_rows=true; `clusterctl plan` tries it",
        signs=(
            sign(
                "error: ",
                pattern=r"^error: .*\.(csv|jsonl?|parquet|txt)(\.gz)?\b.*(row|line)s?[ :]|^error: .*: holds no rows",
            ),
            sign("no text to use, "),
            sign("JSONDecodeError", pattern=r"json\.decoder\.JSONDecodeError|^JSONDecodeError"),
            sign("ArrowInvalid", "DatasetGenerationError", "DatasetGenerationCastError"),
            sign("Cannot find valid samples"),
            sign("UnicodeDecodeError"),
            sign("num_samples should be a positive integer value"),
            sign("_csv.Error"),
        ),
    ),
    Cause(
        "file_not_found",
        "a file that the run needs is not there",
        "check the path on the node: it must lie on a file system that the node sees too",
        signs=(
            sign(
                "FileNotFoundError",
                pattern=r"FileNotFoundError: (\[Errno 2\]|No such file|.*not found|.*does not exist|Directory)",
            ),
            sign("holds no model", "there is no file"),
        ),
    ),
    Cause(
        "configuration",
        "the configuration is not valid",
        "mend what the line names; `clusterctl plan RECIPE` checks it without submitting",
        signs=(
            sign("validation error", pattern=r"\d+ validation errors? for "),
            sign(
                ": error: ", pattern=r"^\S+: error: (the following arguments are required|unrecognized arguments|arg)"
            ),
            sign("Check batch related parameters"),
            sign("Could not override '", "not found in the base model. Please check the target modules"),
            sign("correct the following DeepSpeed config values"),
            sign("must be divisible by ", pattern=r"(heads|batch.size|num_generations).*must be divisible by "),
            sign("error: run.yaml: "),
            sign("yaml.scanner.ScannerError", "yaml.parser.ParserError"),
        ),
    ),
)
