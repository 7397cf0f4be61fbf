"""Causes in the environment: Python packages, modules, hub, trackers, the batch script."""

from __future__ import annotations

from trainers.failures.cause import Cause, sign

CAUSES = (
    Cause(
        "environment_module",
        "an environment module cannot be loaded",
        "`module avail` on the node shows the names; correct `modules` in the site file, `clusterctl doctor` checks it",
        signs=(
            sign("Lmod has detected the following error"),
            sign("Unable to locate a modulefile"),
            sign("module: command not found"),
            sign("ModuleCmd_Load.c"),
            sign("module(s) are unknown"),
            sign("clusterctl: module ", "clusterctl: this node has no environment modules"),
        ),
    ),
    Cause(
        "conda_environment",
        "the conda or virtual environment is not there",
        "`conda env list` shows the names; correct `environment` in the site file, `clusterctl doctor` checks it",
        signs=(
            sign("EnvironmentNameNotFound"),
            sign("EnvironmentLocationNotFound"),
            sign("Could not find conda environment"),
            sign("conda: command not found"),
            sign("CondaError"),
            sign("activate: No such file or directory"),
            sign("properly configured to use 'conda activate'"),
            sign("clusterctl: conda is not on PATH", "clusterctl: there is no environment "),
        ),
    ),
    Cause(
        "python_import",
        "a Python package is missing or does not fit the others",
        "install it in the environment of the job: `clusterctl doctor` shows which Python that is and what is missing",
        signs=(
            sign("ModuleNotFoundError", pattern=r"ModuleNotFoundError: No module named"),
            sign("ImportError: ", pattern=r"^(\[rank\d+\]: ?)?ImportError: "),
            sign("No module named", pattern=r"python[\d.]*: No module named"),
            sign("undefined symbol", pattern=r"(ImportError|OSError|\.so).*undefined symbol"),
            sign("version `", pattern=r"version `(GLIBC|GLIBCXX|CXXABI)_[\d.]+' not found"),
            sign("may indicate binary incompatibility"),
            sign("CUDA Setup failed despite GPU being available", "Configured CUDA binary not found"),
            sign("Transformers does not recognize this architecture"),
            sign("No matching distribution found for"),
            sign("cannot open shared object file"),
            sign("cannot import name ", pattern=r"cannot import name '\w+' from"),
        ),
    ),
    Cause(
        "container",
        "the container could not be started",
        "the line says why: the image's path on the node, or what the node allows; try it there with `true` as program",
        signs=(
            sign("pyxis: ", pattern=r"pyxis: .*(fail|could ?n.t)"),
            sign("could not open image", "container creation failed"),
            sign("docker: Error response from daemon"),
            sign("enroot", pattern=r"^enroot.*(denied|not permitted|failed)"),
        ),
    ),
    Cause(
        "extension_build",
        "a CUDA extension could not be built",
        "load the CUDA toolkit's module (nvcc) of PyTorch's CUDA version, set CUDA_HOME and install ninja; or build it"
        " before, on a login node",
        signs=(
            sign("Error building extension"),
            sign("CUDA_HOME environment variable is not set", "CUDA_HOME does not exist"),
            sign("Ninja is required to load C++ extensions"),
            sign("CUDAMismatchException"),
            sign("ninja: build stopped"),
            sign("error: command", pattern=r"error: command '.*nvcc' failed"),
        ),
    ),
    Cause(
        "hub_gated",
        "the hub wants you to log in, or to accept the model's terms",
        "accept the terms on the model's page, and put HF_TOKEN into the secrets file (chmod 600)",
        signs=(
            sign("GatedRepoError"),
            sign("You are trying to access a gated repo"),
            sign("Client Error", pattern=r"40[13] Client Error.*(huggingface|hf-mirror|resolve)"),
            sign("Invalid user token", "Invalid username or password"),
        ),
    ),
    Cause(
        "hub_not_found",
        "the hub knows no such model or data set",
        "check the name: `clusterctl plan` names the nearest known ones",
        signs=(
            sign("modelscope.hub.errors.NotExistError"),
            sign("RepositoryNotFoundError", "RevisionNotFoundError", "DatasetNotFoundError"),
            sign("is not a valid model identifier listed on"),
            sign("is not a local folder and is not a valid model identifier"),
            sign("Repository Not Found for url"),
        ),
    ),
    Cause(
        "hub_unreachable",
        "the hub cannot be reached from the node",
        "set hugging_face.endpoint in the site file to a mirror (https://hf-mirror.com), or fetch the model before"
        " (`hf download NAME`), name its directory and set hugging_face.offline: true",
        policy="retry",
        signs=(
            sign("We couldn't connect to", pattern=r"We couldn't connect to '?https?://"),
            sign("LocalEntryNotFoundError"),
            sign("OfflineModeIsEnabled"),
            sign(
                "Temporary failure in name resolution",
                pattern=r"(Error|error|Errno).*Temporary failure in name resolution",
            ),
            sign("Name or service not known", pattern=r"(Error|Errno).*Name or service not known"),
            sign(
                "Max retries exceeded with url",
                pattern=r"(ConnectionError|MaxRetryError|SSLError|ProxyError|ConnectTimeout).*Max retries exceeded",
            ),
            sign("ReadTimeoutError", pattern=r"^\S*(ReadTimeoutError|ReadTimeout|ConnectTimeout)\b"),
            sign(
                " Server Error", pattern=r"50[0234] Server Error.*(huggingface|hf-mirror|hf\.co|modelscope|/resolve/)"
            ),
            sign("the hub", pattern=r"the hub (cannot be reached|does not answer)"),
            sign("in offline mode", "outgoing traffic has been disabled"),
        ),
    ),
    Cause(
        "hub_rate_limit",
        "the hub refuses so many requests",
        "fetch the model once before (`hf download NAME`), name its directory and set hugging_face.offline: true;"
        " HF_TOKEN in the secrets file allows more requests",
        policy="retry",
        signs=(sign("429 Client Error", "We had to rate limit"),),
    ),
    Cause(
        "tracker_login",
        "a tracker did not let the run log in",
        "put the key into the secrets file (chmod 600); or tracking.swanlab_mode=local, tracking.wandb_mode=offline",
        signs=(
            sign("api_key not configured", "API key not configured", "api key not configured", "No API key configured"),
            sign("Error api key"),
            sign(
                "wandb: ERROR",
                pattern=r"wandb: ERROR (api_key|API key|Error while calling|user is not logged in)",
            ),
            sign("wandb.errors", pattern=r"wandb\.errors\.\S*(AuthenticationError|UsageError|CommError)"),
            sign(
                "swanlab.",
                "SwanLab",
                "swanlab:",
                pattern=r"(?i)swanlab.*(api key|log.?in|authentication).*(fail|invalid|wrong|required|incorrect)",
            ),
            sign("error: tracker ", pattern=r"^error: tracker \S+ does not start"),
            sign("SWANLAB_API_KEY", "WANDB_API_KEY", pattern=r"(SWANLAB|WANDB)_API_KEY.*(not set|missing|empty|needs)"),
        ),
    ),
    Cause(
        "dos_line_ends",
        "the script has DOS line ends",
        "`sed -i 's/\\r$//' FILE`, and set the editor to Unix line ends",
        signs=(
            sign("$'\\r': command not found"),
            sign("bad interpreter", pattern=r"/bin/(ba)?sh\^M: bad interpreter"),
            sign("DOS line breaks"),
        ),
    ),
    Cause(
        "command_not_found",
        "the script calls a program that is not there",
        "load the module that has it, or correct PATH: `modules` and `env` in the site file",
        signs=(
            sign("command not found", pattern=r"line \d+: \S+: command not found"),
            sign("未找到命令", pattern=r"行 ?\d+[:：] ?\S+[:：] ?未找到命令"),
            sign("execve()", pattern=r"execve\(\): .*No such file or directory"),
        ),
    ),
)
