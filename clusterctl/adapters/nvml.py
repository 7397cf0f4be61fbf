"""This machine's GPUs by NVML, NVIDIA's management library. Only this module and its neighbour import ``pynvml``.

A bad card never hides its neighbours: one that may not be opened is left out, one that is broken is listed
with its problem, and a field that the driver does not tell is None. The past (Xid errors) is not asked for:
NVML does not keep it, the kernel log does.

Functions of which NVML has several versions are called by their versioned names, newest first. The
unversioned ones raise ``NVMLLibraryMismatchError`` on an old driver, which is not an ``NVMLError``.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pynvml

from clusterctl.adapters.nvml_topology import numa_node, pairs
from clusterctl.adapters.process import user_name
from clusterctl.errors import Unavailable
from clusterctl.hardware import Gpu, GpuProcess, Machine

_NO_DRIVER = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: (
        "no NVIDIA driver is installed here (libnvidia-ml.so.1 was not found)",
        "normal on a login node; a GPU machine needs the driver, and a container the flag --gpus all or --nv",
    ),
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: (
        "the NVIDIA driver is installed here, but its kernel module is not loaded",
        "as root: modprobe nvidia; when that fails, `dmesg` says why",
    ),
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
        "the NVIDIA driver was upgraded here, and the old one still runs in the kernel",
        "reboot this machine, or ask its administrator to",
    ),
}

_GONE = {
    pynvml.NVML_ERROR_GPU_IS_LOST: "lost: it has left the PCIe bus; `dmesg | grep Xid` tells more",
    pynvml.NVML_ERROR_RESET_REQUIRED: "needs a reset, as root: nvidia-smi --gpu-reset",
}

_SLOWDOWNS = {
    0x08: "hardware slowdown",
    0x40: "too hot for the hardware",
    0x80: "external power brake",
    0x20: "too hot for the driver",
}
"""The faults among the reasons for low clocks (nvml.h, ``nvmlClocksEventReason*``); idle is none of them."""


def machine(*, timeout: float = 60.0) -> Machine:
    """Every GPU of this machine that this process may open, asked of the driver once.

    A dying card can hang the driver for ever. So the question is put on a thread of its own, which is left
    behind after ``timeout`` seconds; a healthy machine needs up to 20 where persistence mode is off.

    Raises:
        Unavailable: there is no driver, it is not loaded, it is half upgraded, or it does not answer.
    """
    answers: list[Machine | Unavailable] = []

    def ask() -> None:
        try:
            answers.append(_ask_driver())
        except Unavailable as e:
            answers.append(e)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(timeout)
    if asking.is_alive():
        raise Unavailable(
            f"the NVIDIA driver did not answer within {timeout:.0f} s",
            hint="a GPU may be dying: look for Xid errors in `dmesg`, and tell the administrator",
        )
    [answer] = answers
    if isinstance(answer, Unavailable):
        raise answer
    return answer


def _ask_driver() -> Machine:
    gpus: list[Gpu] = []
    handles: dict[int, Any] = {}
    hidden = 0
    with _driver():
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            except pynvml.NVMLError_NoPermission:
                hidden += 1
            except pynvml.NVMLError as e:
                gpus.append(Gpu(index, uuid=None, name=None, problem=_words(e)))
            else:
                gpus += _card(index, handle)
                handles[index] = handle
        return Machine(
            hostname=os.uname().nodename,
            driver=_driver_version(),
            cuda=_cuda_version(),
            gpus=tuple(gpus),
            hidden=hidden,
            pairs=pairs(handles),
        )


@contextlib.contextmanager
def _driver() -> Iterator[None]:
    """NVML, initialised and shut down again."""
    try:
        pynvml.nvmlInit()
        try:
            yield
        finally:
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()
    except pynvml.NVMLError as e:
        message, hint = _NO_DRIVER.get(
            e.value, (f"the NVIDIA driver does not answer: {e}", "see what `nvidia-smi` says on this machine")
        )
        raise Unavailable(message, hint=hint) from e


def _driver_version() -> str | None:
    try:
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None


def _cuda_version() -> str | None:
    try:
        version = pynvml.nvmlSystemGetCudaDriverVersion()
    except pynvml.NVMLError:
        return None
    return f"{version // 1000}.{version % 1000 // 10}"


# --- one card ---------------------------------------------------------------------------------


class _Asked:
    """A card (or a MIG instance) to ask, which remembers when an answer was that the card is gone."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.gone: str | None = None

    def __call__(self, *questions: Callable[[Any], Any]) -> Any:
        """The answer to the first of the questions that the driver answers, or None."""
        for question in questions:
            try:
                return question(self.handle)
            except pynvml.NVMLError as e:
                if e.value in _GONE:
                    self.gone = _words(e)
        return None


def _card(index: int, handle: Any) -> list[Gpu]:
    """A card and, where it is split by MIG, its instances, which share its troubles."""
    card = _gpu(index, handle)
    mode = _Asked(handle)(pynvml.nvmlDeviceGetMigMode)
    if not mode or mode[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
        return [card]
    instances = [_gpu(index, instance) for instance in _mig_instances(handle)]
    return [replace(card, mig=True), *(replace(i, problem=i.problem or card.problem) for i in instances)]


def _mig_instances(handle: Any) -> Iterator[Any]:
    """The handles of a card's MIG instances. Their numbers may have gaps."""
    for number in range(_Asked(handle)(pynvml.nvmlDeviceGetMaxMigDeviceCount) or 0):
        with contextlib.suppress(pynvml.NVMLError):
            yield pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)


def _gpu(index: int, handle: Any) -> Gpu:
    ask = _Asked(handle)
    uuid = ask(pynvml.nvmlDeviceGetUUID)
    name = ask(pynvml.nvmlDeviceGetName)
    memory = ask(_memory_v2, pynvml.nvmlDeviceGetMemoryInfo)
    utilization = ask(pynvml.nvmlDeviceGetUtilizationRates)
    power = ask(pynvml.nvmlDeviceGetPowerUsage)
    power_limit = ask(pynvml.nvmlDeviceGetEnforcedPowerLimit)
    pci = ask(pynvml.nvmlDeviceGetPciInfo_v3)
    temperature = ask(_temperature_v1, _temperature)
    capability = ask(pynvml.nvmlDeviceGetCudaComputeCapability)
    processes = _processes(ask)
    warnings = _warnings(ask)
    problem = _problem(ask)
    return Gpu(
        index=index,
        uuid=uuid,
        name=name,
        memory_total=memory and memory.total,
        memory_used=memory and memory.used,
        utilization=utilization and utilization.gpu,
        temperature=temperature,
        power_w=None if power is None else power / 1000,
        power_limit_w=None if power_limit is None else power_limit / 1000,
        bus_id=pci and pci.busId,
        compute_capability=capability,
        processes=processes,
        problem=problem,
        warnings=warnings,
        numa_node=numa_node(handle, pci and pci.busId),
    )


def _memory_v2(handle: Any) -> Any:
    # Version 1 counts the driver's own reserve (583 MiB on an idle A800) as used, this one does not.
    return pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)


def _temperature_v1(handle: Any) -> Any:
    return pynvml.nvmlDeviceGetTemperatureV(handle, pynvml.NVML_TEMPERATURE_GPU)


def _temperature(handle: Any) -> Any:
    return pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)


def _uncorrected_errors(handle: Any) -> Any:
    return pynvml.nvmlDeviceGetTotalEccErrors(
        handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
    )


# --- health -----------------------------------------------------------------------------------


def _problem(ask: _Asked) -> str | None:
    """Why this card should get no work. To be asked last: a card can get lost between two questions."""
    problems = []
    if errors := ask(_uncorrected_errors):
        problems.append(f"{errors} uncorrected memory errors since the driver was loaded")
    _, _, pending, failed = ask(pynvml.nvmlDeviceGetRemappedRows) or (0, 0, 0, 0)
    if failed:
        problems.append("bad memory rows could not be remapped: replace the card")
    elif pending:
        problems.append("bad memory rows wait to be remapped: drain the card, then reset it")
    return ask.gone or "; ".join(problems) or None


def _warnings(ask: _Asked) -> tuple[str, ...]:
    """What slows this card down."""
    warnings = []
    reasons = ask(pynvml.nvmlDeviceGetCurrentClocksEventReasons, pynvml.nvmlDeviceGetCurrentClocksThrottleReasons)
    if slow := [words for bit, words in _SLOWDOWNS.items() if (reasons or 0) & bit]:
        warnings.append("clocks are held down: " + ", ".join(slow))
    width = ask(pynvml.nvmlDeviceGetCurrPcieLinkWidth)
    widest = ask(pynvml.nvmlDeviceGetMaxPcieLinkWidth)
    if width is not None and widest is not None and width < widest:
        warnings.append(f"PCIe link is x{width} of x{widest}: reseat the card or look at its riser")
    if ask(pynvml.nvmlDeviceGetPersistenceMode) == pynvml.NVML_FEATURE_DISABLED:
        warnings.append("persistence mode is off, so that each job starts slowly; as root: nvidia-smi -pm 1")
    return tuple(warnings)


def _words(error: pynvml.NVMLError) -> str:
    return _GONE.get(error.value, f"the driver cannot read it: {error}")


# --- processes --------------------------------------------------------------------------------


def _processes(ask: _Asked) -> tuple[GpuProcess, ...]:
    """The processes that compute on a card, each once, by their numbers."""
    listed = ask(pynvml.nvmlDeviceGetComputeRunningProcesses_v3, pynvml.nvmlDeviceGetComputeRunningProcesses_v2)
    memory = {process.pid: process.usedGpuMemory for process in listed or ()}
    return tuple(GpuProcess(pid, used, _owner(pid), _command(pid)) for pid, used in sorted(memory.items()))


def _owner(pid: int) -> str | None:
    """Who a process runs as. Its /proc directory is root's where core dumps are forbidden."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return None
    uid = re.search(r"^Uid:\s+(\d+)", status, re.MULTILINE)
    return user_name(int(uid[1])) if uid else None


def _command(pid: int) -> str | None:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None
    return arguments.decode(errors="replace").rstrip("\0").replace("\0", " ") or None
