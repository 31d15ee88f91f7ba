"""Decide what only a builder with the workers' GPU can do: compile for it, and see what a start opens."""

from __future__ import annotations

from bake.account.instance_types import InstanceType
from bake.planning.findings import Findings
from bake.planning.hardware import Types, suits
from bake.profile import Profile

# Seconds a size, beside loading the model: regional compilation takes 9.6 s on an H100, and nobody has
# published a figure for the GPUs of EC2's smaller types; three times that is assumed.
COMPILING = 30


def lacks(profile: Profile, types: Types, *, there: bool = True) -> str:
    """Why the builder cannot stand for the workers' GPU; empty if it can.

    `there`: whether instances have the GPU that their type has, unlike those of a rehearsal.
    """
    wanted = _gpus(types.worker)
    for kind in types.builder:
        if not suits(profile, kind):
            return f"the builder {kind.name} has no {' or '.join(wanted) or 'GPU'}"
        if kind.device is None or kind.device.name not in wanted:
            return f"the builder {kind.name} has {kind.device}, and the workers {' or '.join(wanted)}"
    if len(_gpus(types.builder)) > 1:
        return f"the builder may have {' or '.join(_gpus(types.builder))}"
    return "" if there and types.builder else "instances here have no GPU"


def _gpus(kinds: tuple[InstanceType, ...]) -> list[str]:
    return list(dict.fromkeys(kind.device.name for kind in kinds if kind.device is not None))


def without(types: Types) -> list[str]:
    """The workers' GPUs that are not the builder's: what was compiled is not for them."""
    return [gpu for gpu in _gpus(types.worker) if gpu not in _gpus(types.builder)]


def seconds(profile: Profile, types: Types, loading: float) -> float:
    """Seconds that compiling takes; each size loads the model, in `loading` seconds."""
    return 0 if lacks(profile, types) else len(profile.worker.compile_sizes) * (COMPILING + loading)


def check(profile: Profile, types: Types, why: str, findings: Findings) -> None:
    """Refuse what has no meaning for the accelerator; say what is not done on this builder, and `why`."""
    worker = profile.worker
    if profile.base.accelerator != "cuda":
        _refuse(profile, findings)
        return
    if worker.compile_sizes and why:
        findings.warn(f"worker.compile_sizes: nothing is compiled, since {why}: workers draw eagerly")
    elif worker.compile_sizes and (others := without(types)):
        findings.warn(f"worker.compile_sizes: workers with {' or '.join(others)} draw eagerly")
    if worker.remove_unused_libraries and why:
        findings.warn(
            f"worker.remove_unused_libraries: nothing is removed, since {why}: what a start opens is not seen"
        )


def _refuse(profile: Profile, findings: Findings) -> None:
    accelerator = profile.base.accelerator
    if profile.worker.compile_sizes:
        hint = ["neuron.sizes has the sizes for Neuron"] if accelerator == "neuron" else []
        findings.problem(
            "worker.compile_sizes", f"nothing is compiled so for accelerator: {accelerator}", *hint
        )
    if profile.worker.remove_unused_libraries:
        findings.problem(
            "worker.remove_unused_libraries", f"is for accelerator: cuda alone, not {accelerator}"
        )
