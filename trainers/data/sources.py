"""Where rows come from: files of text, parquet files, saved data sets, the hub. Libraries come in when needed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any

from trainers.config import Data
from trainers.data.rows import READERS, Row, Rows, read, suffix
from trainers.errors import InputProblem

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def rows(name: str, split: str, data: Data) -> Rows:
    """The rows of one entry of data.train_files or data.eval_files, to be walked once; ``split`` is for those
    that have splits. Raises InputProblem."""
    path = Path(name)
    if path.is_dir():
        return _directory(path, split, data)
    if is_plain(name):
        return read(path)
    if suffix(name) == ".parquet":
        return _parquet(path)
    check_kind(name)
    return _load(name, split, data)


def check_kind(name: str) -> None:
    """Raise InputProblem for a file of a kind that is not read, and for what is neither here nor a hub's name."""
    path = Path(name)
    if path.is_dir() or is_plain(name) or suffix(name) == ".parquet":
        return
    if path.exists() or not _HUB_NAME.fullmatch(name):
        known = ", ".join((*READERS, ".parquet"))
        problem = f"none of the kinds {known}" if path.exists() else "no such file"
        raise InputProblem(f"{name}: {problem}", hint=f"convert it to one of {known}{_near(name)}")


def is_plain(name: str) -> bool:
    """Whether the standard library alone reads it."""
    return suffix(name) in READERS and not Path(name).is_dir()


def first_rows(name: str, limit: int) -> Rows:
    """The rows that begin within so many characters of what is_plain. Raises InputProblem."""
    return read(Path(name), limit)


def is_long(name: str, limit: int) -> bool:
    """Whether a file has more bytes."""
    path = Path(name)
    return path.exists() and path.stat().st_size > limit


def check_apart(data: Data) -> None:
    """Raise InputProblem when training rows are named as held-out rows as well."""
    trained = {os.path.realpath(name) for name in data.train_files}
    for name in data.eval_files:
        if os.path.realpath(name) in trained and not (
            _has_splits(name) and data.dataset_split != data.eval_dataset_split
        ):
            raise InputProblem(
                f"{name} is in data.train_files and in data.eval_files: what is trained on measures nothing",
                hint="name another file, or drop data.eval_files and set data.validation_split",
            )


def _has_splits(name: str) -> bool:
    path = Path(name)
    return not path.is_file() and not (path / "state.json").exists()


def _parquet(path: Path) -> Rows:
    if not path.exists():
        raise InputProblem(f"{path}: no such file", hint="check data.train_files and data.eval_files")
    pyarrow, parquet = _library("pyarrow"), _library("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path) as file:
            batches = (batch.to_pylist() for batch in file.iter_batches(batch_size=1000))
            yield from _numbered(chain.from_iterable(batches))
    except (OSError, pyarrow.ArrowException) as e:
        raise InputProblem(f"{path}: not a whole parquet file: {_line(e)}", hint="make or copy it anew") from None


def _directory(path: Path, split: str, data: Data) -> Rows:
    """A data set that save_to_disk wrote, or a folder of data files as the hub has them."""
    datasets = _library("datasets")
    if not any((path / name).exists() for name in ("state.json", "dataset_dict.json")):
        return _load(str(path), split, data)
    try:
        found = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as e:
        raise InputProblem(f"{path}: not a whole saved data set: {_line(e)}", hint="save or copy it anew") from None
    if isinstance(found, dict):
        if split not in found:
            raise InputProblem(
                f"{path}: has no split {split}, but {', '.join(found)}",
                hint="set data.dataset_split, or for eval_files data.eval_dataset_split",
            )
        found = found[split]
    return _numbered(found)


def _load(name: str, split: str, data: Data) -> Rows:
    """A data set of the hub, from the hub or its cache, or a folder of data files."""
    datasets = _library("datasets")
    from huggingface_hub.errors import HfHubHTTPError

    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(name, data.dataset_config_name, split=split, streaming=data.streaming)
    except datasets.exceptions.DatasetNotFoundError:
        raise InputProblem(
            f"{name}: neither a file here nor a data set of the hub that may be read",
            hint=f"check the name; a gated one needs HF_TOKEN{_near(name)}",
        ) from None
    except (ConnectionError, HfHubHTTPError) as e:
        raise InputProblem(
            f"{name}: no such file, and the hub cannot be reached: {_line(e)}",
            hint="set HF_ENDPOINT to a mirror, or download it first: hf download --repo-type dataset "
            f"{name} --local-dir DIR, and name DIR{_near(name)}",
        ) from None
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as e:
        raise InputProblem(
            f"{name}: {_line(e)}",
            hint="check data.dataset_config_name and data.dataset_split, for eval_files data.eval_dataset_split",
        ) from None
    return _numbered(found)


def _numbered(rows: Iterable[dict[str, Any]]) -> Rows:
    return (Row(f"row {number}", fields) for number, fields in enumerate(rows, start=1))


def _library(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise InputProblem(
            f"{name.partition('.')[0]} is not installed, which reads parquet files, saved data sets and the hub",
            hint="pip install 'clusterctl[train]', or convert the data to JSONL",
        ) from None


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:300]


def _near(name: str) -> str:
    """`` (did you mean X?)`` for a name like that of a data set in the hub's cache or of a file beside it."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    cached = [path.name.removeprefix("datasets--").replace("--", "/", 1) for path in cache.glob("datasets--*")]
    path = Path(name)
    beside = [str(path.with_name(other.name)) for other in path.parent.glob("*") if other != path]
    near = get_close_matches(name, [*cached, *beside], n=1, cutoff=0.8)
    return f" (did you mean {near[0]}?)" if near else ""
