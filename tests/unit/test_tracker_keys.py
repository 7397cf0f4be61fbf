"""Keys of trackers are looked for before anything is submitted, wherever their libraries would find them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from clusterctl import compose
from clusterctl.errors import UsageProblem
from clusterctl.recipe import read_recipe
from clusterctl.runs import tracker_keys
from clusterctl.schema import Secrets, Site
from tests.unit.test_bad_input import Cli, nothing_written, refused

CANARY = "canary-7d20b1"
CLOUD = ("--set", "tracking.report_to=swanlab", "--set", "tracking.swanlab_mode=cloud")
ONLINE = ("--set", "tracking.report_to=wandb")


def test_a_missing_key_is_found_before_submission(cli: Cli, recipe: Path) -> None:
    for command in (("submit", "--dry-run"), ("test",), ("run",)):
        refused(
            cli(*command, "mine.yaml", *CLOUD), 2, "SWANLAB_API_KEY is not set", "swanlab login", "swanlab_mode=local"
        )
    refused(cli("submit", "mine.yaml", *ONLINE), 2, "WANDB_API_KEY is not set", "wandb login", "wandb_mode=offline")
    nothing_written(recipe.parent)


def test_what_does_not_log_in_needs_no_key(cli: Cli, recipe: Path) -> None:
    offline = ("--set", "tracking.report_to=[swanlab, wandb, tensorboard]", "--set", "tracking.wandb_mode=offline")
    answer = cli("submit", "mine.yaml", "--dry-run", *offline)
    assert answer.code == 0, answer.err


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)


NETRC = f"machine api.wandb.ai\n  login user\n  password {CANARY}\n"


@pytest.fixture
def found(recipe: Path, home: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    """Whether the key of a tracker is found with these variables and this site; what is said never holds one."""
    monkeypatch.chdir(recipe.parent)
    monkeypatch.setenv("HOME", home["HOME"])
    for name in ("NETRC", "SWANLAB_ROOT", "SWANLAB_SAVE_DIR", "WANDB_BASE_URL", "SWANLAB_API_KEY", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    drafted = {
        words: compose.compose(read_recipe("mine.yaml"), "cpu", Site(), words[1::2]) for words in (CLOUD, ONLINE)
    }

    def look(words: tuple[str, ...], site: Site | None = None, **env: str) -> bool:
        with monkeypatch.context() as patch:
            for name, value in env.items():
                patch.setenv(name, value)
            try:
                tracker_keys.check(drafted[words], site or Site())
            except UsageProblem as e:
                assert CANARY not in e.message + e.hint
                return False
        return True

    return look


def test_every_place_where_a_key_may_be(found: Callable[..., bool], home: dict[str, str]) -> None:
    user = Path(home["HOME"])
    assert found(CLOUD, SWANLAB_API_KEY=CANARY)
    assert not found(CLOUD, WANDB_API_KEY=CANARY)
    assert found(ONLINE, WANDB_API_KEY=CANARY)

    secrets = user / ".config/clusterctl/secrets.env"
    write(secrets, f"# SWANLAB_API_KEY=x\nSWANLAB_API_KEY=\nexport WANDB_API_KEY='{CANARY}'\n")
    assert found(ONLINE)
    assert not found(CLOUD)
    # A name that the site does not list is not read by the job either.
    assert not found(ONLINE, Site(secrets=Secrets(names=["HF_TOKEN"])))
    secrets.unlink()

    write(user / ".netrc", NETRC)
    assert found(ONLINE)
    assert not found(ONLINE, WANDB_BASE_URL="https://wandb.example.org")
    assert not found(ONLINE, Site(env={"WANDB_BASE_URL": "https://wandb.example.org"}))
    assert not found(CLOUD)
    (user / ".netrc").rename(user / "elsewhere")
    assert found(ONLINE, NETRC=str(user / "elsewhere"))
    write(user / ".swanlab/.netrc", f"machine api.swanlab.cn login x password {CANARY}\n")
    assert found(CLOUD)
    assert not found(CLOUD, SWANLAB_ROOT=str(user / "empty"))
    write(user / ".swanlab/.netrc", "no netrc at all\n")
    assert not found(CLOUD)


def test_where_both_libraries_keep_what_login_wrote() -> None:
    """The paths above are theirs: this fails when a new version moves them."""
    import swanlab
    from wandb.sdk.lib.wbauth import wbnetrc

    assert wbnetrc._get_netrc_file_path() == Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    if not {"SWANLAB_ROOT", "SWANLAB_SAVE_DIR"} & set(os.environ):
        assert swanlab.Settings.get_user_config_dir() == Path.home() / ".swanlab"
