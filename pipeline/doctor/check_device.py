"""The device: is there a GPU, can this build of torch use it, and is it the one that was asked for."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.common.machine import device_name, shown_bytes
from pipeline.doctor.finding import Check, Context, Finding


@dataclasses.dataclass(frozen=True)
class DeviceFacts:
    """What torch and the system say about GPUs."""

    asked: str
    """backbones.device."""
    torch: str
    """Version of torch."""
    torch_cuda: str | None
    """CUDA that torch was built for; None for a CPU-only build."""
    torch_sees: tuple[str, ...] = ()
    """Names of the GPUs that torch can use."""
    memory: tuple[int, ...] = ()
    """Bytes of each."""
    capabilities: tuple[str, ...] = ()
    """Compute capability of each: sm_90."""
    built_for: tuple[str, ...] = ()
    """Capabilities that torch was built for; compute_XX stands for all from XX on."""
    hardware: str = ""
    """What says that there is a GPU, whatever torch thinks; "" when nothing does."""
    name: str = ""
    """The processor, for people."""


def device_findings(facts: DeviceFacts) -> Iterator[Finding]:
    """What is wrong between the device asked for, torch and the hardware."""
    if facts.torch_sees:
        yield from _gpu_findings(facts)
        return
    if facts.hardware and facts.torch_cuda is None:
        found = f"there is a GPU ({facts.hardware}), but torch {facts.torch} is a build without CUDA"
        way_out = "install a CUDA build of torch (pytorch.org/get-started), or set backbones.device to cpu"
    elif facts.hardware:
        build = f"torch {facts.torch} for CUDA {facts.torch_cuda}"
        found = f"there is a GPU ({facts.hardware}), but {build} cannot use it"
        way_out = (
            "the driver is too old for that CUDA (compare with what nvidia-smi shows), or the GPU is hidden "
            "(CUDA_VISIBLE_DEVICES, a container without --gpus)"
        )
    else:
        found, way_out = (
            f"no GPU; {facts.name}",
            "fine for the built-in gallery; `plan` tells the hours for more",
        )
    if facts.asked.startswith("cuda"):
        yield Finding("device", "fail", f"backbones.device is {facts.asked}: {found}", way_out)
    else:
        yield Finding("device", "warn" if facts.hardware else "ok", found, way_out)


def _gpu_findings(facts: DeviceFacts) -> Iterator[Finding]:
    number = facts.asked.partition(":")[2]
    if facts.asked == "cpu":
        found = f"{facts.torch_sees[0]} is there, but backbones.device is cpu"
        yield Finding("device", "warn", found, "set backbones.device to auto")
    elif number.isdigit() and int(number) >= len(facts.torch_sees):
        found = f"backbones.device is {facts.asked}, but there are {len(facts.torch_sees)} GPU(s)"
        yield Finding("device", "fail", found, f"cuda:0 to cuda:{len(facts.torch_sees) - 1}, or auto")
    for name, memory, capability in zip(facts.torch_sees, facts.memory, facts.capabilities, strict=True):
        if not _supports(facts.built_for, capability):
            built = ", ".join(facts.built_for)
            found = f"torch {facts.torch} has no kernels for {name} ({capability}), only {built}"
            yield Finding("device", "fail", found, "install a torch build for it (pytorch.org/get-started)")
        else:
            yield Finding(
                "device", "ok", f"{name}, {shown_bytes(memory)}, torch {facts.torch} ({facts.torch_cuda})"
            )


def _supports(built_for: tuple[str, ...], capability: str) -> bool:
    """Whether there are binaries of this major version, or code that can be compiled for it."""
    wanted = int(capability.removeprefix("sm_"))
    for entry in built_for:
        kind, _, digits = entry.partition("_")
        number = int("".join(char for char in digits if char.isdigit()))
        if kind == "sm" and number // 10 == wanted // 10 and number <= wanted:
            return True
        if kind == "compute" and number <= wanted:
            return True
    return False


def gpu_hardware(root: Path = Path("/")) -> str:
    """What of an NVIDIA GPU the system shows without torch, or ""."""
    for path in ("proc/driver/nvidia/version", "dev/nvidia0", "dev/dxg"):
        if (root / path).exists():
            return f"/{path}"
    return shutil.which("nvidia-smi") or "" if root == Path("/") else ""


def _device(context: Context) -> Iterator[Finding]:
    import torch

    seen = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    properties = [torch.cuda.get_device_properties(number) for number in seen]
    yield from device_findings(
        DeviceFacts(
            asked=context.section("backbones").device,
            torch=torch.__version__,
            torch_cuda=torch.version.cuda,
            torch_sees=tuple(p.name for p in properties),
            memory=tuple(p.total_memory for p in properties),
            capabilities=tuple(f"sm_{p.major}{p.minor}" for p in properties),
            built_for=tuple(torch.cuda.get_arch_list()) if properties else (),
            hardware=gpu_hardware(),
            name=device_name("cpu"),
        )
    )


CHECKS: dict[str, Check] = {"device": _device}
