"""Causes on the GPU and below it: memory, driver, hardware."""

from __future__ import annotations

from trainers.failures.cause import Cause, sign

CAUSES = (
    Cause(
        "cuda_out_of_memory",
        "a GPU ran out of memory",
        "`clusterctl plan` names the cheapest change that fits; by hand: halve optim.per_device_train_batch_size and"
        " double optim.gradient_accumulation_steps, then model.gradient_checkpointing=true",
        signs=(
            sign("CUDA out of memory", pattern=r"CUDA out of memory"),
            sign("OutOfMemoryError", pattern=r"(torch|cuda)\S*OutOfMemoryError"),
            sign("CUDA error: out of memory"),
            sign("CUBLAS_STATUS_ALLOC_FAILED"),
            sign("CUDNN_STATUS_ALLOC_FAILED"),
            sign("CUDA_ERROR_OUT_OF_MEMORY"),
        ),
    ),
    Cause(
        "inference_memory",
        "the engine that generates finds too little room on the GPU",
        "a larger gpu_memory_utilization or a smaller max_model_len (method.gpu_memory_utilization and"
        " method.max_completion_length here); where others use the card: another card",
        signs=(
            sign("No available memory for the cache blocks"),
            sign("KV cache is needed, which is larger than the available"),
            sign("larger than the maximum number of tokens that can be stored in KV cache"),
            sign("is less than desired GPU memory utilization"),
            sign("Not enough memory. Please try to increase --mem-fraction-static"),
        ),
    ),
    Cause(
        "cuda_not_visible",
        "the process sees no GPU",
        "`clusterctl doctor --on PROFILE` shows what a job sees there; check that the profile asks for GPUs and that"
        " CUDA_VISIBLE_DEVICES is not set by hand",
        signs=(
            sign("No CUDA GPUs are available"),
            sign("Found no NVIDIA driver"),
            sign("no CUDA-capable device is detected"),
            sign("Torch not compiled with CUDA enabled"),
            sign("this run needs a GPU and PyTorch sees none"),
            sign("invalid device ordinal", pattern=r"CUDA error: invalid device ordinal"),
            sign("CUDA unknown error", pattern=r"RuntimeError: CUDA unknown error"),
        ),
    ),
    Cause(
        "driver_too_old",
        "driver and CUDA do not fit together",
        "install the PyTorch build for this driver's CUDA (`nvidia-smi` shows it), or load the module of a newer one;"
        " `clusterctl doctor` compares them",
        signs=(
            sign("CUDA driver version is insufficient"),
            sign("NVIDIA driver on your system is too old"),
            sign("forward compatibility was attempted"),
            sign("no kernel image is available for execution"),
            sign("Driver/library version mismatch"),
            sign("Unsupported display driver / cuda driver combination"),
            sign("the provided PTX was compiled with an unsupported toolchain"),
        ),
    ),
    Cause(
        "gpu_ecc",
        "a GPU has an uncorrectable memory error",
        "report node and GPU to the administrators; when they have taken it out, `clusterctl resume {run}` goes on",
        policy="resume",
        node=True,
        signs=(
            sign("uncorrectable ECC error"),
            sign("uncorrectable NVLink error"),
            sign("NVRM: Xid", pattern=r"Xid \([^)]*\): (48|63|64|94|95)\b"),
            sign("DBE (double bit error)"),
        ),
    ),
    Cause(
        "gpu_lost",
        "a GPU has left the bus or the driver has given it up",
        "report node and GPU to the administrators; when they have taken it out, `clusterctl resume {run}` goes on",
        policy="resume",
        node=True,
        signs=(
            sign("GPU is lost"),
            sign("fallen off the bus"),
            sign("NVRM: Xid", pattern=r"Xid \([^)]*\): (74|79|119|120|109|62|61)\b"),
            sign("CUDA error: device unavailable", "CUDA-capable device(s) is/are busy or unavailable"),
            sign("CUDA error: unknown error"),
            sign("CUDA error: hardware stack error"),
        ),
    ),
    Cause(
        "gpu_illegal_access",
        "a GPU kernel read or wrote where it must not",
        "run again with --set profile.env.CUDA_LAUNCH_BLOCKING=1 to see which one; usual are wrong labels or token ids,"
        " and attention kernels that do not fit the card",
        signs=(
            sign("an illegal memory access was encountered"),
            sign("CUDA error: misaligned address"),
            sign("unspecified launch failure"),
            sign("CUDA error: an illegal instruction was encountered"),
            sign("CUBLAS_STATUS_EXECUTION_FAILED"),
            sign("NVRM: Xid", pattern=r"Xid \([^)]*\): (13|31|43|45)\b"),
        ),
    ),
    Cause(
        "device_side_assert",
        "a check inside a GPU kernel failed, most often a token or label beyond the vocabulary",
        "check that tokenizer and model belong together; profile.env.CUDA_LAUNCH_BLOCKING=1 makes the traceback true",
        signs=(
            sign("device-side assert triggered"),
            sign("srcIndex < srcSelectDimSize"),
            sign(
                "index out of bounds", pattern=r"(Indexing|IndexKernel|ScatterGather).*Assertion.*index out of bounds"
            ),
            sign("Assertion `t >= 0 && t < n_classes` failed"),
        ),
    ),
    Cause(
        "devices_differ",
        "tensors of one operation lie on different devices",
        "one process for each GPU, or one GPU: profile.gpus_per_node=1 or the launcher; no device_map=auto in training",
        signs=(sign("xpected all tensors to be on the same device"),),
    ),
    Cause(
        "dtypes_differ",
        "tensors of one operation have different number formats",
        "load adapter, model and quantised parts in one format (profile.dtype), and cast what your own code makes",
        signs=(
            sign("must have the same dtype", pattern=r"mat1 and mat2 must have the same dtype"),
            sign("expected scalar type ", pattern=r"RuntimeError: expected scalar type \w+ but found \w+"),
            sign("FlashAttention only support fp16 and bf16"),
        ),
    ),
    Cause(
        "attention_kernel",
        "the attention kernel does not work on this GPU or is not installed",
        "--set model.attn_implementation=sdpa needs nothing; FlashAttention 2 needs Ampere or newer and flash-attn",
        signs=(
            sign("FlashAttention only supports"),
            sign("FlashAttention2 has been toggled on, but it cannot be used"),
            sign("the package flash_attn seems to be not installed"),
            sign("Flash Attention 2 is not available"),
        ),
    ),
    Cause(
        "bf16_unsupported",
        "this GPU knows no bf16",
        "--set profile.dtype=fp16, or a card from Ampere (A40, A100, A800) on",
        signs=(
            sign("Your setup doesn't support bf16"),
            sign("Bfloat16 is only supported on GPUs with compute capability"),
            sign(" has no bf16", pattern=r"^error: .* has no bf16"),
        ),
    ),
)
