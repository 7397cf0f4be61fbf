"""A user's own reward function, ``FILE.py:FUNCTION``: checked without running it, then loaded."""

from __future__ import annotations

import ast
import importlib.util
import sys
import traceback
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from trainers.errors import InputProblem

HINT = "def FUNCTION(prompts, completions, **columns) returns a list with one number (or None) for each completion"


def check(path: Path, function: str) -> None:
    """Look at a reward file without running it. Raises InputProblem: no file, no Python, no such function."""
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except OSError as e:
        raise InputProblem(f"reward file {path}: {e.strerror}", hint="check method.reward_functions") from None
    except (SyntaxError, ValueError) as e:
        line = getattr(e, "lineno", None) or 1
        raise InputProblem(f"{path}:{line}: {getattr(e, 'msg', e)}", hint="correct the reward file") from None
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    # A name may also come from an import or an assignment: then only loading can tell.
    others = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    others |= {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    if function not in functions and function not in others and "*" not in others:
        near = get_close_matches(function, functions, n=1)
        question = f", did you mean {near[0]}?" if near else ""
        raise InputProblem(f"{path}: has no function {function}{question}", hint=HINT)


def load(path: Path, function: str) -> Callable[..., Any]:
    """Import the file and return its function. Raises InputProblem with the line of the file that raised."""
    check(path, function)
    name = f"clusterctl_reward_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # noqa: S101  (true of every .py file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # So that the file can import its neighbours, as it could when run as a program.
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    # Whatever a stranger's file raises, SystemExit of a script among it.
    except (Exception, SystemExit) as e:  # noqa: BLE001
        raise InputProblem(where(e, path), hint="the reward file has to be importable") from None
    found = getattr(module, function, None)
    if not callable(found):
        raise InputProblem(f"{path}: {function} is no function", hint=HINT)
    return found  # type: ignore[no-any-return]


def where(error: BaseException, path: Path | None) -> str:
    """``FILE:LINE: what went wrong``, with the innermost line of that file that took part."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if path and frame.filename == str(path)]
    place = f"{path}:{frames[-1].lineno}: " if frames else f"{path}: " if path else ""
    said = str(error).strip().splitlines()
    return f"{place}{type(error).__name__}" + (f": {said[0]}" if said else "")
