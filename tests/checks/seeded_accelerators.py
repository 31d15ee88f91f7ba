"""Faults of drivers, of Neuron's and int8's artifacts, and of disks, on machines that have none of these.

Stand-ins for a few programs make a builder of the local cloud look like one that has; with them alone the
checks are green.
"""

from __future__ import annotations

import json
from typing import Any

from bake.checks import Expectations

from .faults import Batch, Change, Fault, stand_in
from .seeded_faults import CACHE

PERSISTENCED = "/etc/systemd/system/nvidia-persistenced.service"
DAEMON = "[Service]\\nExecStart=/bin/true\\n[Install]\\nWantedBy=multi-user.target\\n"
TORCH = "/opt/flux-worker/venv/lib/$PY/site-packages/torch"


def _package(name: str, version: str = "1") -> str:
    """Install a Debian package without files."""
    fields = (
        f"Package: {name}",
        f"Version: {version}",
        "Architecture: all",
        "Maintainer: x",
        "Description: x",
    )
    control = "\\n".join(fields)
    return (
        f"mkdir -p /root/package/DEBIAN; printf '{control}\\n' >/root/package/DEBIAN/control;"
        " dpkg-deb -b /root/package /root/package.deb; dpkg -i /root/package.deb; rm -r /root/package*"
    )


DRIVERS = [
    Fault(
        "drivers.persistence_daemon_is_enabled",
        "UnitFileState=disabled",
        f"printf '{DAEMON}' >{PERSISTENCED}; systemctl daemon-reload",
        f"rm {PERSISTENCED}; systemctl daemon-reload",
    ),
    Fault(
        "drivers.kernel_is_held",
        "linux-image-fault",
        _package("linux-image-fault"),
        "dpkg --purge linux-image-fault",
    ),
    Fault(
        "drivers.torch_is_built_for_the_planned_cuda",
        "found CUDA 12",
        f"cp -a {TORCH}/version.py /root/; sed -i \"s/^cuda.*/cuda = '12.8'/\" {TORCH}/version.py",
        f"mv /root/version.py {TORCH}/",
    ),
    Fault(
        "drivers.no_source_of_the_bake_is_left",
        "/etc/apt/sources.list.d/bake-neuron.list",
        "touch /etc/apt/sources.list.d/bake-neuron.list",
        "rm /etc/apt/sources.list.d/bake-neuron.list",
    ),
]

# Where there would be a kernel with a driver's module, CUDA's library and a GPU; the machine is a container.
KERNEL = "6.8.0-1099-aws"
_BARE = "\n".join(
    [stand_in("systemd-detect-virt", "exit 1"), stand_in("grubby", f"echo /boot/vmlinuz-{KERNEL}")]
)


def _module(version: str) -> str:
    return stand_in("modinfo", f'[ "$1" = --set-version={KERNEL} ] || exit 1; echo {version}')


def _library(version: str) -> str:
    return f"touch /root/libcuda.so.{version}; ln -sf libcuda.so.{version} /root/libcuda.so.1"


def _gpu(version: str) -> str:
    return stand_in("nvidia-smi", f"echo {version}")


def _torch_has(answer: bool) -> str:
    return f"printf 'def is_available():\\n    return {answer}\\n' >>{TORCH}/cuda/__init__.py"


NVIDIA = Batch(
    seed="\n".join([
        _BARE,
        _module("580.95.05"),
        stand_in("ldconfig", 'echo "	libcuda.so.1 (libc6,x86-64) => /root/libcuda.so.1"'),
        _library("580.95.05"),
        _gpu("580.95.05"),
        f"mv {TORCH}/cuda/__init__.py /root/cuda.py; cp -a /root/cuda.py {TORCH}/cuda/__init__.py",
        _torch_has(True),
    ]),
    mend=f"rm -f /usr/local/bin/* /root/libcuda*; mv /root/cuda.py {TORCH}/cuda/__init__.py",
    select="drivers",
    expect=lambda expect: {"driver_minimum": "580.65.06", "device": True},
    faults=[
        Fault(
            "drivers.driver_is_new_enough",
            "expected 580.65.06 or newer, found 570.86.15",
            "\n".join([_module("570.86.15"), _library("570.86.15"), _gpu("570.86.15")]),
        ),
        Fault("drivers.driver_has_its_libraries", "found /root/libcuda.so.590.44.01", _library("590.44.01")),
        Fault("drivers.gpus_answer", "found 590.44.01", _gpu("590.44.01")),
        Fault("drivers.torch_has_the_gpu", "found False", _torch_has(False)),
    ],
)  # fmt: skip

KERNEL_WITHOUT_DRIVER = Change(
    f"{NVIDIA.seed}\nsed -i s/1099/1100/ /usr/local/bin/grubby",
    NVIDIA.mend,
    {
        "drivers.driver_is_new_enough": "found no driver",
        "drivers.driver_has_its_libraries": "expected libcuda.so.",
        "drivers.gpus_answer": "found 580.95.05",
    },
    select="drivers",
    expect=NVIDIA.expect,
    why="a driver's version is that of its module for the kernel that boots, and here there is none",
)

NEURON_ARTIFACTS = "/opt/flux-worker/neuron"
NEURON_WORKER = "/opt/flux-worker/neuron-venv/bin/flux-worker"
STACK = ("runtime-lib", "dkms", "collectives", "tools")


def _compiled(width: int, revision: str = "$(basename $SNAPSHOT)") -> str:
    made = f'{{"width": {width}, "height": 1024, "revision": "{revision}"}}'.replace('"', '\\"')
    return f'install -d {NEURON_ARTIFACTS}/one; echo "{made}" >{NEURON_ARTIFACTS}/one/compiled.json'


def _finds(width: int) -> str:
    """A worker that finds one size, on what its unit says: as root or on the CPU it would prove nothing."""
    found = json.dumps({"neuron": {"shapes": [{"width": width, "height": 1024}]}})
    script = f"[ $(id -un) = ubuntu ] && [ $FLUX_BACKEND = cuda ] && echo '{found}'\nexit 78"
    return f"install -d {NEURON_WORKER.rpartition('/')[0]}; " + stand_in("flux-worker", script).replace(
        "/usr/local/bin/flux-worker", NEURON_WORKER
    )


def _on_neuron(expect: Expectations) -> dict[str, Any]:
    pins = {f"aws-neuronx-{part}": "2.29.0.0" for part in STACK}
    return {"accelerator": "neuron", "device": True, "neuron_sizes": ("1024x1024",), "neuron": pins}


NEURON = Batch(
    seed="\n".join([
        _BARE,
        _module("2.29.0.0"),
        *(_package(f"aws-neuronx-{part}", "2.29.0.0-1") for part in STACK),
        *(f"apt-mark hold aws-neuronx-{part}" for part in STACK),
        "touch /dev/neuron0",
        _compiled(1024),
        _finds(1024),
    ]),
    mend="\n".join([
        f"rm -r /usr/local/bin/* {NEURON_ARTIFACTS} /opt/flux-worker/neuron-venv; rm -f /dev/neuron0",
        *(f"dpkg --purge --force-hold aws-neuronx-{part}" for part in STACK),
    ]),
    select="drivers",
    expect=_on_neuron,
    faults=[
        Fault(
            "drivers.neuron_stack[aws-neuronx-runtime-lib]",
            "expected 2.29.0.0, found 2.28.0.0-1",
            "apt-mark unhold aws-neuronx-runtime-lib; " + _package("aws-neuronx-runtime-lib", "2.28.0.0-1")
            + "; apt-mark hold aws-neuronx-runtime-lib",
        ),
        Fault(
            "drivers.neuron_stack[aws-neuronx-dkms]",
            "found not installed",
            "dpkg --purge --force-hold aws-neuronx-dkms",
        ),
        Fault(
            "drivers.neuron_stack[aws-neuronx-collectives]",
            "expected aws-neuronx-collectives is held",
            "apt-mark unhold aws-neuronx-collectives",
        ),
        Fault(
            "drivers.neuron_stack[aws-neuronx-tools]",
            "expected aws-neuronx-tools is held",
            "apt-mark unhold aws-neuronx-tools",
        ),
        Fault("drivers.neuron_module", "exit code 1", "sed -i 1aexit\\ 1 /usr/local/bin/modinfo"),
        Fault("drivers.neuron_devices_are_there", "neuron0 among them", "rm /dev/neuron0"),
        Fault("drivers.compiled_for_neuron", "found 768x1024", _compiled(768)),
        Fault("drivers.worker_finds_what_is_compiled", "found 512x1024", _finds(512)),
        Fault(
            "drivers.compiler_left_nothing_else",
            "/var/tmp/neuron-compile-cache",
            "mkdir /var/tmp/neuron-compile-cache",
            "rmdir /var/tmp/neuron-compile-cache",
        ),
    ],
)  # fmt: skip

COMPILED = "/opt/flux-worker/compiled"


def _blocks(width: int) -> str:
    told = f'{{"format": 1, "sizes": [[{width}, 1024, 512]]}}'.replace('"', '\\"')
    return f'install -d {COMPILED}/gpu; echo "{told}" >{COMPILED}/gpu/compiled.json'


BLOCKS = Batch(
    seed=_blocks(1024),
    mend=f"rm -r {COMPILED}",
    select="compiled_blocks",
    expect=lambda expect: {"compiled_sizes": ("1024x1024",)},
    faults=[
        Fault("performance.compiled_blocks", "found 768x1024", _blocks(768)),
        Fault("performance.compiled_blocks", f"found {COMPILED}/gpu", f"chmod 777 {COMPILED}/gpu"),
    ],
)  # fmt: skip

# A checkpoint that is right in all that the checks look at.
INT8_MODEL = "/srv/int8"


def _provenance(revision: str) -> str:
    told = f'{{"revision": "{revision}", "outputs": {{"vae/a.safetensors": {{"bytes": 6}}}}}}'.replace(
        '"', '\\"'
    )
    return f'echo "{told}" >{INT8_MODEL}/quantization.json'


INT8 = Batch(
    seed="\n".join([
        f"install -d {INT8_MODEL}/vae; echo whole >{INT8_MODEL}/vae/a.safetensors",
        _provenance("$(basename $SNAPSHOT)"),
        f"""echo '{{"psnr": 31.5}}' >{INT8_MODEL}/comparison.json""",
    ]),
    mend=f"rm -r {INT8_MODEL}",
    select="int8",
    expect=lambda expect: {"precision": "int8", "model_dir": INT8_MODEL},
    faults=[
        Fault("weights.int8_is_there_if_wanted", f"found {'0' * 40}", _provenance("0" * 40)),
        Fault("weights.int8_is_whole", "found vae/c.safetensors", f"touch {INT8_MODEL}/vae/c.safetensors"),
        Fault(
            "weights.int8_draws_like_bf16",
            "found 11.5 dB",
            f"""echo '{{"psnr": 11.5}}' >{INT8_MODEL}/comparison.json""",
        ),
        Fault("weights.int8_is_roots", "found /srv/int8/vae", f"chmod 777 {INT8_MODEL}/vae"),
    ],
)  # fmt: skip

# A second volume at the cache, with all that was there. In memory, and so nothing but its kind tells it from
# another EBS volume: the stand-in names another.
BLOCK = "/sys/dev/block"


def _disk(path: str, model: str) -> str:
    """Say of the disk that holds `path` what model it is: the kernel's own folder can't be written to."""
    folder = f"/run/fault-disk/nvme-$(stat -c %d {path})n1"
    number = f"$(findmnt --noheadings --output MAJ:MIN --target {path} | tr -d ' ')"
    return (
        f"mountpoint -q {BLOCK} || mount -t tmpfs none {BLOCK}; mkdir -p {folder}/device {folder}/queue;"
        f" echo '{model}' >{folder}/device/model; ln -sfn {folder} {BLOCK}/{number}"
    )


_NO_DISKS = f"if mountpoint -q {BLOCK}; then umount {BLOCK}; fi; rm -rf /run/fault-disk"


def _kind(name: str) -> str:
    """A findmnt that names this kind of file system."""
    return stand_in("findmnt", f'case $* in *FSTYPE*) echo {name} ;; *) exec /usr/bin/findmnt "$@" ;; esac')


SECOND_VOLUME = Batch(
    faults=[
        Fault(
            "disk.cache_on_root_volume",
            CACHE,
            f"mkdir /srv/kept; cp -a {CACHE}/. /srv/kept/; mount -t tmpfs none {CACHE};"
            f" cp -a /srv/kept/. {CACHE}/; chown ubuntu: {CACHE}; chmod 755 {CACHE}; {_kind('ext4')}",
            f"umount {CACHE}; rm -r /srv/kept /usr/local/bin/findmnt",
        ),
        Fault(
            "disk.cache_not_on_instance_store",
            "found Amazon EC2 NVMe Instance Storage",
            _disk(CACHE, "Amazon EC2 NVMe Instance Storage"),
            _NO_DISKS,
        ),
        Fault(
            "performance.read_ahead_of_the_root_disk",
            "found 128 KiB",
            f"{_disk('/', 'Amazon Elastic Block Store')}; echo 128 >/run/fault-disk/nvme-$(stat -c %d /)n1/"
            "queue/read_ahead_kb; mkdir -p /run/udev; touch /run/udev/control",
            f"rm -r /run/udev; {_NO_DISKS}",
        ),
    ],
)
# A root that is no disk, as an overlay.
NO_DISK = Batch(
    faults=[Fault("disk.cache_on_a_disk", "found overlay", _kind("overlay"), "rm /usr/local/bin/findmnt")],
    select="disk",
)
# All of AWS and the plan agree on more than there is.
SMALL = Batch(
    faults=[
        Fault(
            "disk.filesystem_fills_volume",
            "expected 93.0 to 100 GiB",
            expect=lambda expect: {"root_volume_gib": 100, "volume_gib": 100},
        )
    ],
    select="disk",
)
