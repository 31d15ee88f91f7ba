"""Whether the model fits: the arithmetic for known hardware, and the refusal before memory is used."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flux_worker.errors import ConfigurationError
from flux_worker.inference import capacity
from flux_worker.inference.capacity import Gpu, Machine
from flux_worker.inference.checkpoint import Checkpoint
from flux_worker.inference.memory import anonymous_ram, available_ram

pytestmark = pytest.mark.integration
REVISION = "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21"
GIB = 1 << 30
MIB = 1 << 20
CONTEXT = 400 * MIB  # what CUDA itself takes of a card's memory, about
WEIGHTS = {
    "transformer": 23_802_954_040,
    "text_encoder_2": 9_524_648_584,
    "text_encoder": 246_144_352,
    "vae": 167_666_902,
}


def machine(vram_mib: int | None, ram_gib: float = 15) -> Machine:
    """Stands for a machine with such a GPU; sizes of GPUs as EC2 reports them."""
    gpu = None
    if vram_mib is not None:
        gpu = Gpu("GPU", "sm89", vram_mib * MIB, vram_mib * MIB - CONTEXT)
    return Machine(gpu=gpu, ram_total=16 * GIB, ram_available=round(ram_gib * GIB), cores=4)


def assess(has: Machine, precision: Any) -> capacity.Verdict:
    return capacity.assess(has, capacity.in_precision(WEIGHTS, precision), precision)


@pytest.mark.parametrize(
    ("vram_mib", "precision", "fits", "tile"),
    [
        pytest.param(22_888, "bf16", False, 512, id="A10G-L4-bf16"),
        pytest.param(22_888, "int8", True, 512, id="A10G-L4-int8"),
        pytest.param(45_776, "bf16", True, None, id="L40S-bf16"),
        pytest.param(45_776, "int8", True, None, id="L40S-int8"),
        pytest.param(15_360, "int8", False, 512, id="T4-int8"),
        pytest.param(38_912, "bf16", True, 1024, id="38-GiB-bf16"),
        pytest.param(81_559, "bf16", True, None, id="H100-bf16"),
    ],
)
def test_which_gpu_holds_which_precision(vram_mib: int, precision: Any, fits: bool, tile: int | None) -> None:
    verdict = assess(machine(vram_mib), precision)
    assert verdict.fits == fits
    assert verdict.short_of == (() if fits else ("VRAM",))
    assert verdict.tile == tile


def test_the_sums_come_to_what_was_measured() -> None:
    assert assess(machine(81_559), "bf16").vram_needed == pytest.approx(36.2 * GIB, abs=1)
    assert assess(machine(81_559), "int8").vram_needed == pytest.approx(21.5 * GIB, abs=1)


def test_host_memory_counts_what_is_not_mapped() -> None:
    assert assess(machine(45_776, ram_gib=2), "bf16").fits
    assert assess(machine(45_776, ram_gib=1), "bf16").short_of == ("RAM",)
    assert assess(machine(None, ram_gib=5), "bf16").short_of == ("RAM",)
    assert assess(machine(None, ram_gib=7), "bf16").fits


def test_host_memory_is_counted_for_each_of_several_workers() -> None:
    four = dataclasses.replace(machine(45_776, ram_gib=6), workers=4)
    verdict = assess(four, "bf16")
    assert (verdict.ram_needed, verdict.short_of) == (
        4 * assess(machine(45_776), "bf16").ram_needed,
        ("RAM",),
    )
    assert verdict.vram_needed == assess(machine(45_776), "bf16").vram_needed, "each has its own GPU"
    assert capacity.arithmetic(four, verdict).endswith(
        "; RAM 4 workers x (1.6 to load) = 6.3 of 6.0 GiB available"
    )


@pytest.mark.parametrize(("workers", "said"), [(1, False), (2, True)])
def test_several_workers_on_less_ram_than_weights_are_told_how_the_disk_is_read(
    checkpoint: Checkpoint, workers: int, said: bool
) -> None:
    has = dataclasses.replace(machine(45_776), workers=workers)  # 16 GiB of RAM
    whole = Whole(**dataclasses.asdict(checkpoint))
    text = "\n".join(capacity.lines(has, whole, capacity.assess_both(has, whole)))
    assert ("RAM is smaller than the weights: workers that start together" in text) == said


@pytest.mark.parametrize(
    ("ram_total", "ram_available", "workers", "why"),
    [
        pytest.param(64, 60, 1, None, id="enough"),
        pytest.param(
            64, 30, 1, "RAM 31.4 weights + 6.3 to load and draw = 37.8 of 30.0 GiB", id="too-little"
        ),
        pytest.param(64, 60, 2, "RAM 2 workers x (31.4 weights + 6.3 to", id="not-for-both"),
        pytest.param(128, 60, 2, None, id="another-has-its-own-by-now"),
    ],
)
def test_weights_are_read_into_ram_where_every_worker_can_have_them(
    checkpoint: Checkpoint, ram_total: int, ram_available: int, workers: int, why: str | None
) -> None:
    has = Machine(None, ram_total * GIB, ram_available * GIB, cores=4, workers=workers)
    whole = Whole(**dataclasses.asdict(checkpoint))
    found = capacity.no_room_to_stream(has, whole)
    assert found is None if why is None else why in str(found)
    lines = "\n".join(capacity.lines(has, whole, capacity.assess_both(has, whole)))
    assert (f"the weights stay mapped: {why}" if why else "the weights are read into RAM") in lines
    assert capacity.no_room_to_stream(machine(45_776, ram_gib=2), whole) is None


@pytest.fixture
def checkpoint(cache: Path) -> Checkpoint:
    folder = cache / "models--black-forest-labs--FLUX.1-dev" / "snapshots" / REVISION
    return Checkpoint(folder, REVISION, "bf16")


class Whole(Checkpoint):
    """The tiny model's files, with the true model's sizes."""

    def weights(self) -> dict[str, int]:
        return capacity.in_precision(WEIGHTS, self.precision)


def test_the_refusal_shows_the_sums_and_what_helps(checkpoint: Checkpoint) -> None:
    whole = Whole(**dataclasses.asdict(checkpoint))
    with pytest.raises(ConfigurationError) as raised:
        capacity.require(machine(22_888), whole)
    assert str(raised.value).splitlines() == [
        "FLUX.1-dev in bf16 does not fit: VRAM 31.4 weights + 4.8 to draw 1024x1024 = 36.2 of 22.0 GiB free"
        " on GPU; RAM 1.6 to load of 15.0 GiB available",
        f"int8 fits: flux-worker quantize {whole.folder} DIR, then set FLUX_MODEL_DIR=DIR"
        " (made once, on any machine with the files)",
    ]
    with pytest.raises(ConfigurationError, match=r"No precision fits\. .* bf16 needs 36.2 GiB, int8 21.5"):
        capacity.require(machine(15_360), whole)
    capacity.require(machine(45_776), whole)


def test_what_an_int8_checkpoint_came_from_is_judged_by_its_provenance(
    int8: Path, checkpoint: Checkpoint
) -> None:
    both = capacity.assess_both(machine(45_776), Checkpoint(int8, REVISION, "int8"))
    assert both["bf16"].weights == sum(checkpoint.weights().values())
    assert both["int8"].weights == sum(file.stat().st_size for file in int8.glob("*/*.safetensors"))


def test_loading_asks_before_it_reads(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flux_worker.inference import backend_torch, model
    from flux_worker.settings import ModelSettings

    monkeypatch.setattr(capacity, "this_machine", lambda: machine(None, ram_gib=0))
    monkeypatch.setattr(backend_torch, "_from_files", lambda folder: pytest.fail("the weights were read"))
    with pytest.raises(ConfigurationError, match=r"does not fit: RAM 0\.0 to load"):
        model.load(ModelSettings(FLUX_MODEL_REVISION=REVISION, HF_HUB_CACHE=cache, FLUX_BACKEND="cpu"))


def test_this_machine_is_seen_as_the_kernel_tells_it() -> None:
    found = capacity.this_machine()
    assert 0 < found.ram_available < found.ram_total
    assert found.cores > 0
    assert found.device == "cpu" or found.gpu


def test_anonymous_memory_is_what_no_file_holds(tmp_path: Path) -> None:
    import gc
    import mmap

    (tmp_path / "file").write_bytes(bytes(64 * MIB))
    gc.collect()  # what is given back meanwhile would be counted, too
    before = anonymous_ram()
    with (tmp_path / "file").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped.read().count(b"\0") == 64 * MIB
        held = b"\1" * (64 * MIB)
        grown = anonymous_ram() - before
    assert len(held) == 64 * MIB
    # 64 MiB belong to no file; with the mapped ones it would be 128.
    assert 32 * MIB < grown < 112 * MIB


def meminfo(proc: Path, available_kib: int) -> None:
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable:   {available_kib} kB\n")


def unified(proc: Path, cgroups: Path, limit: str) -> None:
    (proc / "self" / "cgroup").write_text("0::/system.slice/flux-worker.service\n")
    service = cgroups / "system.slice" / "flux-worker.service"
    service.mkdir(parents=True)
    (service / "memory.max").write_text(f"{limit}\n")
    (service / "memory.current").write_text(f"{3 * GIB}\n")
    (service / "memory.stat").write_text(f"anon {GIB}\nactive_file {GIB}\ninactive_file {GIB}\n")


def legacy(proc: Path, cgroups: Path, limit: str) -> None:
    (proc / "self" / "cgroup").write_text("4:memory:/box\n2:cpu,cpuacct:/\n0::/\n")
    box = cgroups / "memory" / "box"
    box.mkdir(parents=True)
    (box / "memory.limit_in_bytes").write_text("9223372036854771712\n" if limit == "max" else f"{limit}\n")
    (box / "memory.usage_in_bytes").write_text(f"{3 * GIB}\n")
    (box / "memory.stat").write_text(f"cache 1\ntotal_active_file {GIB}\ntotal_inactive_file {GIB}\n")


@pytest.mark.parametrize("kind", [unified, legacy])
@pytest.mark.parametrize(
    ("limit", "available_gib"),
    [
        pytest.param(str(4 * GIB), 3, id="limit"),  # 1 GiB is held for good, 2 are page cache
        pytest.param("max", 8, id="no-limit"),
        pytest.param(str(64 * GIB), 8, id="limit-above-the-machine"),
        pytest.param(str(GIB // 2), 0, id="beyond-the-limit"),
    ],
)
def test_a_cgroups_limit_counts(
    tmp_path: Path, kind: Callable[[Path, Path, str], None], limit: str, available_gib: int
) -> None:
    """Files as the kernel writes them: no test can be put into a cgroup everywhere."""
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    meminfo(proc, 8 * GIB // 1024)
    kind(proc, cgroups, limit)
    assert available_ram(proc, cgroups) == available_gib * GIB
