"""Where the model and the adapter of a run are, checked without any library, so that a wrong path shows at once."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from trainers.config import Model
from trainers.errors import InputProblem

KNOWN = (
    *(
        f"Qwen/Qwen2.5-{size}{kind}"
        for size in ("0.5B", "1.5B", "3B", "7B", "14B", "32B")
        for kind in ("", "-Instruct")
    ),
    *(f"Qwen/Qwen3-{size}" for size in ("0.6B", "1.7B", "4B", "8B", "14B", "32B")),
    *(f"HuggingFaceTB/SmolLM2-{size}-Instruct" for size in ("135M", "360M", "1.7B")),
    *(f"meta-llama/Llama-3.2-{size}-Instruct" for size in ("1B", "3B")),
    "meta-llama/Llama-3.1-8B-Instruct",
)
"""Names on the hub that people mean when they mistype one; sizes that do not exist are a favourite."""


def near_name(name: str) -> str:
    """A question for a hint, ending in a space: did you mean ...? Empty where no known name is near."""
    near = get_close_matches(name, KNOWN, n=1, cutoff=0.8)
    return f"did you mean {near[0]}? " if near and near[0] != name else ""


def check_paths(config: Model) -> None:
    """Raise InputProblem for a model directory or an adapter that is not there. Names on the hub pass."""
    name = config.model_name_or_path
    folder = Path(name).expanduser()
    if not folder.is_dir() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise InputProblem(f"model {name}: no such directory", hint="check model.model_name_or_path")
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise InputProblem(
            f"model {name}: the directory has no config.json",
            hint="an adapter: name its base model here, and it in model.adapter_name_or_path"
            if is_adapter(name)
            else "name the directory that save_pretrained or hf download wrote",
        )
    if config.adapter_name_or_path:
        adapter_folder(config.adapter_name_or_path)


def model_source(config: Model) -> str:
    """What ``from_pretrained`` is to load: the directory, or the name on the hub."""
    folder = Path(config.model_name_or_path).expanduser()
    return str(folder) if folder.is_dir() else config.model_name_or_path


def is_adapter(name: str) -> bool:
    """Whether this is the directory of an adapter, or of a run that trained one."""
    path = Path(name).expanduser()
    return any((folder / "adapter_config.json").is_file() for folder in (path, path / "final_model"))


def adapter_folder(name: str) -> Path:
    """The directory of an adapter, named by itself or by its run directory. Raises InputProblem."""
    path = Path(name).expanduser()
    for folder in (path, path / "final_model"):
        if (folder / "adapter_config.json").is_file():
            return folder
    raise InputProblem(
        f"adapter {name}: no adapter_config.json in it nor in its final_model",
        hint="model.adapter_name_or_path names a run directory or the directory of an adapter",
    )
