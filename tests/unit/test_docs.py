"""What the documents say about fields, defaults, codes, variables, files and links is so."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import types
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from clusterctl.app import make_app
from clusterctl.durations import slurm_time
from clusterctl.errors import ClusterctlError
from clusterctl.schema import Member, Profile, Site
from tests.documents import DOCUMENTS, ROOT, anchors, links, tables
from trainers.config import STAGES, RunConfig, of_stage
from trainers.config.fields import all_keys, leaves
from trainers.config.section import keys

DOCS = ROOT / "docs"
SOURCES = [path for folder in ("clusterctl", "trainers", "job_templates") for path in (ROOT / folder).rglob("*.*")]
CODE = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES if path.suffix in (".py", ".j2"))


# --- tables of fields -------------------------------------------------------------------------


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """All leaves of a schema by their dotted name."""
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from fields(info.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, info


def expected(model: type[BaseModel], left_out: Collection[str] = ()) -> list[list[str]]:
    """The first three cells of every row: name, values, default."""
    return [[f"`{name}`", values(info), default(info)] for name, info in fields(model) if name not in left_out]


def is_time(info: FieldInfo) -> bool:
    return info.annotation is int and any(isinstance(part, BeforeValidator) for part in info.metadata)


def values(info: FieldInfo) -> str:
    return "time" if is_time(info) else kind(info.annotation)


def kind(annotation: Any) -> str:
    match get_origin(annotation):
        case origin if origin is Annotated:
            return kind(get_args(annotation)[0])
        case origin if origin in (Union, types.UnionType):
            return kind(next(arg for arg in get_args(annotation) if arg is not type(None)))
        case origin if origin is Literal:
            return ", ".join(f"`{value}`" for value in get_args(annotation))
        case origin if origin is list:
            [item] = get_args(annotation)
            return f"list of {kind(item)}" if get_origin(item) is Literal else "list"
        case origin if origin is dict:
            return "mapping"
    return {str: "text", int: "integer", float: "number", bool: "`true`, `false`"}[annotation]


def default(info: FieldInfo) -> str:
    match info.default:
        case value if value is PydanticUndefined:
            return "required"
        case None | "":
            return ""
        case bool(value):
            return f"`{str(value).lower()}`"
        case list(items):
            return f"`[{', '.join(items)}]`"
        case value:
            return f"`{slurm_time(value) if is_time(info) else value}`"


def documented(path: Path, heading: str) -> list[list[list[str]]]:
    return [[row[:3] for row in table] for table in tables(path, heading)]


def test_tables_of_recipes_and_profiles() -> None:
    member, profile = documented(DOCS / "recipes-and-profiles.md", "key")
    assert member == expected(Member)
    assert profile == expected(Profile)


def test_the_page_of_keys_is_what_the_schema_says() -> None:
    """When this fails, the schema has changed: ``make docs`` writes the page anew."""
    spec = importlib.util.spec_from_file_location("recipe_fields", DOCS / "recipe_fields.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PAGE.read_text(encoding="utf-8") == script.page(), "docs/recipe-fields.md is stale: make docs"


def test_every_key_says_what_it_means() -> None:
    for stage in STAGES:
        mute = [leaf.key for leaf in leaves(of_stage(stage)) if len(leaf.meaning) < 5 or not leaf.meaning.endswith(".")]
        assert not mute, stage


def test_table_of_the_site_file() -> None:
    [site] = documented(DOCS / "site-file.md", "field")
    assert site == expected(Site)


def test_every_field_of_a_table_says_what_it_means() -> None:
    for name, heading in (("recipes-and-profiles.md", "key"), ("site-file.md", "field")):
        for table in tables(DOCS / name, heading):
            assert all(len(row) == 4 and row[3].endswith(".") for row in table)


def test_every_key_that_a_document_names_exists() -> None:
    known = {*all_keys(), *(f"profile.{key}" for key in keys(Profile)), *keys(Site)}
    sections = "|".join([*RunConfig.model_fields, "profile", "hugging_face", "secrets", "environment"])
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        if path.name == "migration.md":
            # The first column has the keys of others.
            text = "\n".join(row[1] for table in tables(path, "before") for row in table)
        for key in re.findall(rf"`((?:{sections})\.[a-z0-9_.]+)", text):
            assert key in known or key.endswith(FILES), f"{path.name}: {key}"


FILES = (".py", ".json", ".log")


# --- other tables -----------------------------------------------------------------------------


def test_table_of_exit_codes() -> None:
    [rows] = tables(DOCS / "exit-codes-and-json.md", "code")
    named = {row[1].strip("`"): int(row[0]) for row in rows if row[1]}
    assert named == {kind.__name__: kind.exit_code for kind in ClusterctlError.__subclasses__()}


def test_variables_are_those_of_the_code() -> None:
    listed = {row[0].strip("`") for table in tables(DOCS / "site-file.md", "variable") for row in table}
    pattern = r"\bCLUSTERCTL_[A-Z]+(?:_[A-Z]+)*\b"
    assert {name for name in listed if name.startswith("CLUSTERCTL_")} == set(re.findall(pattern, CODE))
    assert all(name in CODE for name in listed)


@pytest.mark.parametrize(("readme", "heading"), [("README.md", "command"), ("README.zh-CN.md", "命令")])
def test_the_readme_lists_every_command(readme: str, heading: str) -> None:
    [rows] = tables(ROOT / readme, heading)
    listed = {name for row in rows for name in re.findall(r"`(\w+)[^`]*`", row[0])}
    app = make_app()
    names = {c.name for c in app.registered_commands} | {g.name for g in app.registered_groups}
    assert listed == names


def test_files_of_a_run_are_written_somewhere() -> None:
    [rows] = tables(DOCS / "runs.md", "file")
    for row in rows:
        for name in re.findall(r"`([^`]+)`", row[0]):
            parts = [part for part in name.replace("-N", "-").split("/") if part]
            assert all(part in CODE for part in parts), name


# --- links and names --------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in links(document):
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_documents_that_the_code_names_exist() -> None:
    for name in set(re.findall(r"\bdocs/[\w-]+\.md", CODE)):
        assert (ROOT / name).is_file(), name


def test_both_readmes_have_the_same_parts() -> None:
    def parts(name: str) -> tuple[list[str], list[str]]:
        text = (ROOT / name).read_text(encoding="utf-8")
        return re.findall(r"^(#+|- |\|)", text, re.MULTILINE), [
            link for link in links(ROOT / name) if not link.startswith("README")
        ]

    assert parts("README.md") == parts("README.zh-CN.md")


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for path in DOCUMENTS:
        named = re.findall(r"(?:`|\$ )make ([a-z-]+)", path.read_text(encoding="utf-8"))
        assert set(named) <= targets, path.name


# --- hooks ------------------------------------------------------------------------------------


def test_hooks_run_what_make_lint_runs_and_fetch_nothing() -> None:
    path = ROOT / ".pre-commit-config.yaml"
    done = subprocess.run([sys.executable, "-m", "pre_commit", "validate-config", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    repositories = yaml.safe_load(path.read_text(encoding="utf-8"))["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    hooks = [hook["entry"].replace(" --force-exclude", "") for hook in repositories[0]["hooks"]]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert lint
    assert hooks == [line.strip().replace("$(BIN)", ".venv/bin") for line in lint[1].splitlines()]
    assert all(hook["language"] == "system" for hook in repositories[0]["hooks"])
