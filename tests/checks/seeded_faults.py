"""Faults to seed on a provisioned builder: of the system, its secrets, the model's files, the disk."""

from __future__ import annotations

from .faults import Change, Fault, stand_in
from .seeded_secrets import AWS_KEY, HF_TOKEN, PRIVATE_KEY

CACHE = "/home/ubuntu/.cache/huggingface/hub"

USERS = [
    Fault(
        "users.user_and_home",
        "/home/admin",
        "ln -s ubuntu /home/admin; sed -i.kept 's#:/home/ubuntu:#:/home/admin:#' /etc/passwd",
        "mv /etc/passwd.kept /etc/passwd; rm /home/admin",
    ),
    Fault("users.home_belongs_to_user", "777", "chmod 777 /home/ubuntu", "chmod 755 /home/ubuntu"),
    # Of this one command, since the tests become root by `sudo` themselves.
    Fault(
        "users.user_may_become_root",
        "a password is required",
        "echo 'ubuntu ALL=(ALL) PASSWD: /usr/bin/id, /bin/id' >/etc/sudoers.d/zz-fault",
        "rm /etc/sudoers.d/zz-fault",
    ),
    Fault("users.no_passwords", "ubuntu", "echo ubuntu:letmein | chpasswd", "passwd -qdl ubuntu"),
]
HALF = "Package: half-there\\nStatus: install ok half-configured\\nVersion: 1\\nArchitecture: all\\n"
SYSTEM = [
    Fault(
        "system.operating_system",
        "ID=arch",
        "sed -i.kept 's/^ID=.*/ID=arch/' /etc/os-release",
        "mv /etc/os-release.kept /etc/os-release",
    ),
    Fault(
        "system.packages_are_consistent",
        "half-there",
        f"printf '{HALF}Maintainer: x\\nDescription: x\\n\\n' >>/var/lib/dpkg/status",
        "sed -i '/^Package: half-there$/,/^$/d' /var/lib/dpkg/status",
    ),
    Fault(
        "system.system_python_is_untouched",
        "/this.py",
        "cp -a /usr/lib/$PY/this.py /root/; echo >>/usr/lib/$PY/this.py",
        "mv /root/this.py /usr/lib/$PY/",
    ),
    Fault(
        "system.no_failed_units",
        "fault-failed.service",
        "systemd-run -q --unit=fault-failed false; "
        "until systemctl is-failed -q fault-failed; do sleep 0.1; done",
        "systemctl reset-failed fault-failed",
    ),
    Fault(
        "system.no_swap",
        "/swapfile",
        "echo '/swapfile none swap sw 0 0' >>/etc/fstab",
        "sed -i /swapfile/d /etc/fstab",
    ),
    Fault(
        "system.clock",
        "s off",
        stand_in("date", 'exec /bin/date --date="1 hour ago" "$@"'),
        "rm /usr/local/bin/date",
    ),
]
SECURITY = [
    Fault(
        "security.only_ssh_listens",
        "8099 (tcp, 0.0.0.0)",
        "systemd-run -q --unit=fault-port python3 -m http.server --bind 0.0.0.0 8099; "
        "until (: </dev/tcp/127.0.0.1/8099) 2>/dev/null; do sleep 0.1; done",
        "systemctl stop fault-port",
    ),
    Fault("security.no_new_rights", "/opt/env", "install -m 4755 /usr/bin/env /opt/env", "rm /opt/env"),
    Fault(
        "security.nothing_is_writable_for_others",
        "/opt/flux-worker/a name",
        "install -m 664 /dev/null '/opt/flux-worker/a name'; chmod 757 /etc/systemd/system/flux-worker.path",
        "rm '/opt/flux-worker/a name'; chmod 644 /etc/systemd/system/flux-worker.path",
    ),
    # In a file too large to be searched for what only looks like a token.
    Fault(
        "security.token_not_on_disk",
        "/srv/notes",
        '{ head --bytes=2M /dev/zero; echo "token = $TOKEN"; } >/srv/notes',
        "rm /srv/notes",
    ),
    Fault(
        "security.token_not_in_processes",
        "environ of process",
        "HF_TOKEN=$TOKEN setsid sleep infinity >/dev/null 2>&1 & echo $! >/run/fault.pid",
        "kill $(cat /run/fault.pid); rm /run/fault.pid",
    ),
    # At the end of a long message, which the journal compresses: its file does not hold the token as it is.
    Fault(
        "security.token_not_in_journal",
        "the token in the journal",
        "journalctl --relinquish-var;"
        ' (head --bytes=6K /etc/services | tr "\\n" " "; echo "$TOKEN") | logger --size 8KiB;'
        " journalctl --sync",
        "rm -rf /run/log/journal/*; systemctl restart systemd-journald; journalctl --flush",
    ),
    Fault(
        "security.no_hf_token_file",
        "/root/.cache/huggingface/token",
        "install -D /dev/null /root/.cache/huggingface/token",
        "rm /root/.cache/huggingface/token",
    ),
    Fault("security.no_other_hf_token", "/etc/motd.hf", f"echo {HF_TOKEN} >/etc/motd.hf", "rm /etc/motd.hf"),
    Fault(
        "security.no_aws_keys",
        "/home/ubuntu/.aws/credentials",
        f"mkdir /home/ubuntu/.aws; echo {AWS_KEY} >/home/ubuntu/.aws/credentials",
        "rm -r /home/ubuntu/.aws",
    ),
    Fault(
        "security.no_private_keys",
        "/home/ubuntu/.ssh/id_x",
        f"echo '{PRIVATE_KEY}' >/home/ubuntu/.ssh/id_x",
        "rm /home/ubuntu/.ssh/id_x",
    ),
]


VAE, CLIP = "$SNAPSHOT/vae/config.json", "$SNAPSHOT/text_encoder/config.json"
MERGES = "$SNAPSHOT/tokenizer/merges.txt"
WEIGHTS = [
    Fault(
        "weights.licence_notice",
        "No such file",
        "mv /usr/share/doc/flux-worker/NOTICE /root/",
        "mv /root/NOTICE /usr/share/doc/flux-worker/",
    ),
    # diffusers takes the tokenizer from tokenizer.json, and does not miss this one.
    Fault(
        "weights.files_are_there",
        "tokenizer/merges.txt",
        f"mv $(readlink -f {MERGES}) /root/; mv {MERGES} /root/merges.link",
        f"mv /root/$(basename $(readlink /root/merges.link)) $BLOBS/; mv /root/merges.link {MERGES}",
    ),
    # The worker itself refuses a file of another size: see COMBINED. Here it is the lock that says another.
    Fault(
        "weights.files_have_their_size",
        "tokenizer/vocab.json: ",
        expect=lambda expect: {"files": {**expect.files, "tokenizer/vocab.json": 1}},
    ),
    # The same bytes under another name: the name is the hash that was verified.
    Fault(
        "weights.files_are_the_locked_ones",
        "vae/config.json: 89ab",
        f"cp -a {VAE} /root/vae.link; mv $(readlink -f {VAE}) $BLOBS/89ab;"
        f" ln -sfn ../../../blobs/89ab {VAE}; chown -h ubuntu {VAE}",
        f"mv -f /root/vae.link {VAE}; mv $BLOBS/89ab $BLOBS/$(basename $(readlink {VAE}))",
    ),
    Fault(
        "weights.links_resolve",
        "text_encoder/config.json",
        f"cp -a {CLIP} /root/clip.link; mv $(readlink -f {CLIP}) /srv/;"
        f" ln -sfn /srv/$(basename $(readlink /root/clip.link)) {CLIP}; chown -h ubuntu {CLIP}",
        f"mv -f /root/clip.link {CLIP}; mv /srv/$(basename $(readlink {CLIP})) $BLOBS/",
    ),
    Fault(
        "weights.nothing_partly_downloaded",
        "0123.incomplete",
        "install -o ubuntu /dev/null $BLOBS/0123.incomplete",
        "rm $BLOBS/0123.incomplete",
    ),
    Fault(
        "weights.no_locks",
        "y.lock",
        f"install -D -o ubuntu /dev/null {CACHE}/.locks/x/y.lock",
        f"rm -r {CACHE}/.locks",
    ),
    Fault(
        "weights.nothing_unneeded",
        "flux1-dev.safetensors",
        "ln -s ../../blobs/$BLOB $SNAPSHOT/flux1-dev.safetensors; chown -h ubuntu $SNAPSHOT/flux1*",
        "rm $SNAPSHOT/flux1-dev.safetensors",
    ),
    Fault("weights.no_unused_blobs", "4567", "install -o ubuntu /dev/null $BLOBS/4567", "rm $BLOBS/4567"),
    Fault(
        "weights.only_this_revision",
        "old",
        "echo 0123 >$SNAPSHOT/../../refs/old; chown ubuntu $SNAPSHOT/../../refs/old",
        "rm $SNAPSHOT/../../refs/old",
    ),
    Fault(
        "weights.only_this_revision",
        "no other snapshot, found 0123",
        "install -d -o ubuntu $SNAPSHOT/../0123",
        "rmdir $SNAPSHOT/../0123",
    ),
    Fault(
        "weights.only_this_model",
        "FLUX.1-schnell",
        f"install -d -o ubuntu {CACHE}/models--black-forest-labs--FLUX.1-schnell",
        f"rmdir {CACHE}/models--black-forest-labs--FLUX.1-schnell",
    ),
    Fault(
        "weights.cache_belongs_to_worker", "found 0", "chown root $BLOBS/$BLOB", "chown ubuntu $BLOBS/$BLOB"
    ),
]
DISK = [
    Fault(
        "disk.one_copy_of_each_weight",
        "FLUX.1-dev/copy",
        "cp -p $BLOBS/$BLOB $SNAPSHOT/../../copy",
        "rm $SNAPSHOT/../../copy",
    ),
    Fault("disk.volume_size_as_agreed", "found 81 GiB", expect=lambda expect: {"volume_gib": 81}),
    Fault("disk.volume_type_as_agreed", "found gp2", expect=lambda expect: {"volume_type": "gp2"}),
    Fault(
        "disk.what_was_removed_is_gone",
        "/usr/local/cuda-12.6",
        "mkdir /usr/local/cuda-12.6",
        "rmdir /usr/local/cuda-12.6",
        expect=lambda expect: {"removed": ("cuda-12.6", "docker-images")},
    ),
    # All but 1.5 GiB; of a file that was not written the local cloud keeps nothing.
    Fault(
        "disk.space_is_left",
        "1.5 GiB free",
        "fallocate --length $(($(df --output=avail --block-size=1 / | tail -n 1) - (3 << 29))) /srv/full",
        "rm /srv/full",
    ),
]
PACKAGES = "/opt/flux-worker/venv/lib/$PY/site-packages"
TORCH = f"{PACKAGES}/torch/lib/libtorch_cpu.so"
READ_AHEAD = "/etc/udev/rules.d/60-bake-read-ahead.rules"
# The source of some bytecode that a start reads.
TRACED = (
    "grep -o '[^\"]*/site-packages/[a-z]*/__pycache__/__init__[^\"]*pyc' /usr/lib/flux-worker/trace.json |"
    " head -n 1 | sed 's#__pycache__/.*#__init__.py#' >/root/source"
)
PERFORMANCE = [
    Fault(
        "performance.read_ahead_rule",
        'expected 2560 KiB for KERNEL=="xvd*"',
        f"cp {READ_AHEAD} /root/rule; sed -i '/xvd/d' {READ_AHEAD}",
        f"mv /root/rule {READ_AHEAD}",
    ),
    # Written to again after it was traced, with the same content: a boot would not read it ahead.
    Fault(
        "performance.trace",
        "libtorch_cpu.so: changed after it was traced",
        f"touch -r {TORCH} /root/kept; touch {TORCH}",
        f"touch -r /root/kept {TORCH}; rm /root/kept",
    ),
    Fault(
        "performance.bytecode",
        "it is newer than its bytecode",
        f"{TRACED}; touch -r $(cat /root/source) /root/time; touch $(cat /root/source)",
        "touch -r /root/time $(cat /root/source); rm /root/source /root/time",
    ),
]


def _rule(change: str, found: str) -> Change:
    return Change(
        f"cp {READ_AHEAD} /root/rule; {change} {READ_AHEAD}",
        f"mv /root/rule {READ_AHEAD}",
        {"performance.read_ahead_rule": found},
        select="read_ahead",
    )


READ_AHEAD_RULES = {
    "no rule": _rule("rm", "found none"),
    "as Linux has it": _rule("sed -i s/2560/128/", 'read_ahead_kb}="128"'),
    "malformed": _rule("sed -i 's/KERNEL==/KERNEL/'", "expected no line that is no rule, found"),
    "not on NVMe": _rule("sed -i /nvme/d", "Amazon Elastic Block Store"),
}
IN_MEMORY = Change(
    f"mount -t tmpfs none {CACHE}",
    f"umount {CACHE}",
    {"disk.cache_on_root_volume": CACHE, "disk.cache_on_a_disk": "found tmpfs"},
    select="disk",
    why="a file system in memory is neither the root volume's nor on a disk",
)

NOT_LOADED = {
    f"weights.{name}": "the model does not load: see weights.loads_offline"
    for name in ("is_flux_dev", "precision", "no_offload")
}
GONE, CUT = (f"transformer/diffusion_pytorch_model-0000{number}-of-00003.safetensors" for number in (1, 2))
# A shard that is missing and one that is cut short: sizes, links and the model itself tell.
BROKEN_WEIGHTS = Change(
    f"mv $SNAPSHOT/{GONE} /root/shard; cp --preserve=all -L $SNAPSHOT/{CUT} /root/whole;"
    f" truncate -s 100 $SNAPSHOT/{CUT}",
    f"mv /root/shard $SNAPSHOT/{GONE}; cp --preserve=all /root/whole $SNAPSHOT/{CUT}; rm /root/whole",
    {
        "weights.files_are_there": GONE,
        "weights.files_have_their_size": f"{CUT}: 100 bytes",
        "weights.no_unused_blobs": "no unused blob",
        "weights.loads_offline": GONE,
        **NOT_LOADED,
    },
    select="weights",
    why="the worker refuses weights that are not whole, and the link's blob stays without a link",
)
