"""``clusterctl init`` on machines without Slurm: what it sees, what it writes, and what it never touches."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from clusterctl import yaml_text
from tests.fake_nvml.build import fake_nvml_env
from tests.project import CLUSTERCTL, Answer
from tests.unit.conftest import fake_program

Cli = Callable[..., Answer]
QUIET = {"HF_HUB_OFFLINE": "1"}
"""The hub is not asked."""


def site(folder: Path) -> dict[str, Any]:
    return dict(yaml_text.read(folder / "clusterctl.yaml").values)


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture
def hub() -> Iterator[str]:
    """A hub that answers everything with 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()


# --- what is written --------------------------------------------------------------------------


def test_a_machine_with_nothing(cli: Cli, folder: Path, recipe: Path) -> None:
    answer = cli("init", **QUIET)
    assert answer.code == 0, answer.err
    assert "no Slurm here" in answer.out
    text = (folder / "clusterctl.yaml").read_text(encoding="utf-8")
    assert set(site(folder)) <= {"environment", "hugging_face"}
    assert cli("submit", str(recipe), "--dry-run").code == 0
    before = (folder / "clusterctl.yaml").stat().st_mtime_ns
    again = cli("init", **QUIET)
    assert (again.code, "says this already; nothing was written" in words(again.out)) == (0, True)
    assert (folder / "clusterctl.yaml").stat().st_mtime_ns == before
    assert (folder / "clusterctl.yaml").read_text(encoding="utf-8") == text


def test_every_key_is_explained_and_what_is_off_can_be_switched_on(cli: Cli, folder: Path, recipe: Path) -> None:
    from clusterctl.settings import KEYS

    assert cli("init", **QUIET).code == 0
    lines = (folder / "clusterctl.yaml").read_text(encoding="utf-8").split("\n")
    for key in KEYS:
        [number] = [n for n, line in enumerate(lines) if line.removeprefix("# ").startswith(f"{key}:")]
        assert lines[number - 1].startswith("# "), key
    heads = ("# clusterctl.yaml", "# Written", "# before", "# before.", "# found:", "# guess:", "# kept")
    on = [
        line.removeprefix("# ") if line.startswith("#   ") or line.removeprefix("# ").split(":")[0] in KEYS else line
        for line in lines
        if not line.startswith(heads)
    ]
    (folder / "clusterctl.yaml").write_text("\n".join(on), encoding="utf-8")
    assert set(site(folder)) == set(KEYS)
    shown = cli("submit", str(recipe), "--dry-run", "--scheduler", "slurm")
    assert '#SBATCH --account="my-lab"' in shown.out, shown.err


def test_a_gpu_server(cli: Cli, folder: Path, tmp_path: Path) -> None:
    answer = cli("init", **QUIET, **fake_nvml_env(tmp_path))
    assert "GPUs here: 4 x a800, 4 x a40" in answer.out
    assert "partitions" not in site(folder)
    broken = cli("init", **QUIET, **fake_nvml_env(tmp_path, [], init_error=18))
    assert "GPUs here: the NVIDIA driver was upgraded here" in words(broken.out)


def test_modules_of_a_login_shell(cli: Cli, folder: Path, home: dict[str, str]) -> None:
    (Path(home["HOME"]) / ".bash_profile").write_text(
        "echo 'Welcome to cuda/land, today: maintenance'\n"
        "module() { [ \"$*\" = '-t avail' ] && printf '%s\\n' /a: cuda/12.4'(default)' slurm/22 gcc/13.2 >&2; }\n"
    )
    for program in ("timeout", "id", "tty"):
        (folder.parent / "bin" / program).symlink_to(f"/usr/bin/{program}")
    answer = cli("init", **QUIET)
    assert "2 that could matter, 0 of such loaded here" in answer.out
    assert "modules" not in site(folder)
    assert "# found: of 2 that could matter: cuda/12.4, gcc/13.2" in (folder / "clusterctl.yaml").read_text()
    assert cli("init", "--yes", **QUIET, LOADEDMODULES="slurm/22:cuda/12.4:a/b").code == 0
    assert site(folder)["modules"] == ["cuda/12.4"]


def test_an_environment_that_can_train_is_taken(cli: Cli, folder: Path, tmp_path: Path) -> None:
    """Ours, where it can. One that is active and has torch is told of beside it."""
    env = tmp_path / "envs" / "werewolf"
    (env / "bin").mkdir(parents=True)
    (env / "conda-meta").mkdir()
    (env / "bin/python").write_text("#!/bin/bash\necho trainers torch\n")
    (env / "bin/python").chmod(0o755)
    active = {"CONDA_PREFIX": str(env), "CONDA_DEFAULT_ENV": "werewolf"}
    assert cli("init", **QUIET, **active).code == 0
    assert site(folder)["environment"]["kind"] in ("venv", "uv", "none", "conda")
    text = words((folder / "clusterctl.yaml").read_text(encoding="utf-8").replace("\n# ", " "))
    assert f"{{kind: python, path: {env}/bin/python}} (active here (CONDA_PREFIX); there is no `conda`" in text
    fake_program(folder.parent / "bin", "conda", "exit 1")
    assert cli("init", "--yes", **QUIET, **active).code == 0
    text = words((folder / "clusterctl.yaml").read_text(encoding="utf-8").replace("\n# ", " "))
    assert "{kind: conda, name: werewolf} (active here (CONDA_PREFIX); has torch and the trainers)" in text


def test_scratch_and_caches(cli: Cli, folder: Path, tmp_path: Path) -> None:
    roomy = tmp_path / "scr $(atch)"
    roomy.mkdir()
    answer = cli("init", **QUIET, SCRATCH=str(roomy), WORK="/nowhere", HF_HOME="/data/hf: #1")
    assert f"Scratch:   {roomy}, " in answer.out
    assert site(folder)["hugging_face"] == {"home": "/data/hf: #1", "offline": True}
    # Other mounts of this machine may stand beside it.
    lines = words((folder / "clusterctl.yaml").read_text(encoding="utf-8").replace("\n# ", " "))
    assert str(roomy) in lines.partition("writable places for large files: ")[2]


def test_what_etc_or_the_user_says_is_not_hidden(cli: Cli, folder: Path, home: dict[str, str]) -> None:
    own = Path(home["HOME"]) / ".config/clusterctl/clusterctl.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("# mine\nenvironment: {kind: conda, name: mine}\naccount: mine\n")
    assert cli("init", **QUIET).code == 0
    assert "environment" not in site(folder)
    text = words((folder / "clusterctl.yaml").read_text(encoding="utf-8").replace("\n# ", " "))
    assert f"said by {own}:2, which a line here would hide" in text


# --- the hub ----------------------------------------------------------------------------------


def test_a_mirror_that_answers(cli: Cli, folder: Path, hub: str) -> None:
    answer = cli("init", HF_ENDPOINT=f"http://li:hunter2@{hub}/?token=hunter3")
    assert f"Hub:       http://{hub}/, reached" in answer.out
    assert site(folder)["hugging_face"] == {"endpoint": f"http://{hub}/"}
    assert "hunter" not in answer.out + answer.err + (folder / "clusterctl.yaml").read_text()


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "file:///etc/passwd", "nonsense"])
def test_a_hub_that_does_not_answer(cli: Cli, folder: Path, endpoint: str) -> None:
    answer = cli("init", HF_ENDPOINT=endpoint)
    assert "was not reached from here" in words(answer.out)
    (folder / "clusterctl.yaml").unlink()
    assert cli("init", **QUIET).code == 0
    assert "endpoint: https://hf-mirror.com" in (folder / "clusterctl.yaml").read_text(encoding="utf-8")


# --- keys -------------------------------------------------------------------------------------


def test_keys_are_named_and_never_shown(cli: Cli, folder: Path, home: dict[str, str]) -> None:
    keys = {"SWANLAB_API_KEY": "s3cr%t\\n", "HF_TOKEN": 'hf_"x y'}
    answer = cli("init", **QUIET, **keys)
    written = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file())
    for value in keys.values():
        assert value not in answer.out + answer.err + written + cli("init", "--json", **QUIET, **keys).out
    said = words(answer.out)
    command = said[said.index("(umask") : said.index("secrets.env)") + len("secrets.env)")]
    subprocess.run(["bash", "-c", command], env={**os.environ, "HOME": home["HOME"], **keys}, check=True)
    file = Path(home["HOME"]) / ".config/clusterctl/secrets.env"
    assert file.read_text() == 'SWANLAB_API_KEY=s3cr%t\\n\nHF_TOKEN=hf_"x y\n'
    assert file.stat().st_mode & 0o777 == 0o600


# --- a file that stands there -----------------------------------------------------------------

OWN = "account: mine\nmodules: [cuda/11]\n"


def test_without_a_terminal_nothing_is_overwritten(cli: Cli, folder: Path) -> None:
    (folder / "clusterctl.yaml").write_text(OWN)
    for options in ([], ["--json"]):
        answer = cli("init", *options, **QUIET)
        assert answer.code == 2
        assert "is there and would change" in answer.out + answer.err
    assert (folder / "clusterctl.yaml").read_text() == OWN


def test_own_lines_stay_and_the_old_file_too(cli: Cli, folder: Path) -> None:
    (folder / "real.yaml").write_text(OWN)
    (folder / "real.yaml").chmod(0o600)
    (folder / "clusterctl.yaml").symlink_to("real.yaml")
    answer = cli("init", "--yes", **QUIET, LOADEDMODULES="cuda/12.4")
    assert answer.code == 0, answer.err
    assert "-modules: [cuda/11]" in answer.out
    assert '+# kept; seen now: ["cuda/12.4"]' in answer.out
    assert {**site(folder), "environment": 0, "hugging_face": 0} == {
        "account": "mine",
        "modules": ["cuda/11"],
        "environment": 0,
        "hugging_face": 0,
    }
    assert (folder / "real.yaml.old").read_text() == OWN
    assert {(folder / name).stat().st_mode & 0o777 for name in ("real.yaml", "real.yaml.old")} == {0o600}
    assert (folder / "clusterctl.yaml").is_symlink()


def test_a_terminal_sees_the_difference_and_is_asked(folder: Path, home: dict[str, str]) -> None:
    (folder / "clusterctl.yaml").write_text(OWN)

    def answer(said: bytes) -> str:
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(folder)
            os.execve(CLUSTERCTL, [str(CLUSTERCTL), "init"], {**home, **QUIET, "COLUMNS": "100", "TERM": "xterm"})
        seen = b""
        while select.select([terminal], [], [], 20)[0]:
            try:
                more = os.read(terminal, 4096)
            except OSError:
                break
            if b"[y/N]" in more:
                os.write(terminal, said + b"\n")
            seen += more
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        return seen.decode()

    for no in (b"", b"n", b"maybe"):
        assert "stays as it is; nothing was written" in words(answer(no))
        assert (folder / "clusterctl.yaml").read_text() == OWN
    shown = answer(b"y")
    assert shown.index("-modules: [cuda/11]") < shown.index("Overwrite") < shown.index("written: ")
    assert site(folder)["account"] == "mine"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("account: [\n", "clusterctl.yaml:2 is not valid YAML"),
        ("acount: mine\n", "unknown keys: acount"),
        ("scheduler: pbs\n", "scheduler"),
        ("- a\n", "holds no `key: value` pairs"),
    ],
)
def test_a_file_that_is_wrong_is_not_overwritten(cli: Cli, folder: Path, text: str, said: str) -> None:
    (folder / "clusterctl.yaml").write_text(text)
    answer = cli("init", "--yes", **QUIET)
    assert (answer.code, said in answer.err) == (2, True), answer.err
    assert (folder / "clusterctl.yaml").read_text() == text


def test_a_folder_that_cannot_be_written(cli: Cli, folder: Path) -> None:
    (folder / "clusterctl.yaml").mkdir()
    answer = cli("init", **QUIET)
    assert (answer.code, "Traceback" in answer.err) == (3, False), answer.err


def test_no_heavy_module_is_loaded(folder: Path, home: dict[str, str]) -> None:
    from tests.unit.test_cli import modules

    assert not modules("init", cwd=folder, env={**home, **QUIET}) & {"torch", "transformers", "jinja2", "datasets"}
