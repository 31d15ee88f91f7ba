"""The model: exactly the pinned files, the worker's, and loading as the worker loads them."""

from __future__ import annotations

import shlex

import pytest

from bake import layout
from bake.checks.declare import check
from bake.checks.evidence import Compare
from bake.checks.expectations import Expectations
from bake.checks.gathered import Answers, Facts

# In int8; the VAE and CLIP are small and stay as they are.
QUANTIZED = ["text_encoder_2", "transformer"]
ROOT = 0
LOWEST_PSNR = 20.0  # two unrelated images have about 10 dB
BAKE_AGAIN = "Bake again: the download checks every file against the lock."
ROOM = "What nobody reads takes room on every volume, and is copied into every snapshot."


@check("critical", "A model with a missing file does not load.", BAKE_AGAIN)
def test_files_are_there(cache: Facts, compare: Compare, expect: Expectations) -> None:
    """Every file of the model that the cache shall hold is there: what diffusers loads (R-CACHE, R-MODEL)."""
    found = cache["missing"]
    compare.none(cache, found, f"no missing file of {len(expect.files)}")


@check("critical", "A file that was cut off makes noise, or does not load.", BAKE_AGAIN)
def test_files_have_their_size(cache: Facts, compare: Compare) -> None:
    """Every file of the model has the size the Hub states, to the byte (R-CACHE)."""
    wrong = {name: f"{found} bytes instead of {size}" for name, (size, found) in cache["wrong_size"].items()}
    compare.none(cache, wrong, "no file of another size")


@check("critical", "Other weights are another model, whoever made them.", BAKE_AGAIN)
def test_files_are_the_locked_ones(cache: Facts, compare: Compare, expect: Expectations) -> None:
    """Every file of the model is the verified blob of the hash that the lock gives it (R-MODEL)."""
    blobs: dict[str, str] = cache["blobs"]
    wrong = {name: blob for name, blob in blobs.items() if blob != expect.digests[name]}
    compare.none(cache, wrong, f"no file of {len(expect.digests)} under another hash")


@check(
    "critical",
    "A link that leads nowhere, or out of the cache, loses its file when the disk is copied.",
    BAKE_AGAIN,
)
def test_links_resolve(cache: Facts, compare: Compare) -> None:
    """Every link of the snapshot leads to a file inside the repository's folder (R-CACHE)."""
    compare.none(cache, cache["dangling"], "no link that leads nowhere")
    compare.none(cache, cache["outside"], "no link that leads out of the repository's folder")


@check("medium", ROOM, "Remove what was found; find out what was downloading.")
def test_nothing_partly_downloaded(cache: Facts, compare: Compare) -> None:
    """Nothing partly downloaded takes up space (R-CACHE)."""
    compare.none(cache, cache["partial"], "no .incomplete file")


@check("low", "A lock that is left makes the next download wait.", "Remove what was found.")
def test_no_locks(cache: Facts, compare: Compare) -> None:
    """No lock files of the download are left (R-CACHE)."""
    compare.none(cache, cache["locks"], "no .lock file")


@check("medium", ROOM, "Remove what was found from the base AMI's cache, or choose another cache.")
def test_nothing_unneeded(cache: Facts, compare: Compare) -> None:
    """The snapshot holds nothing that diffusers does not load, no single-file checkpoint (R-DISK)."""
    compare.none(cache, cache["extra"], "no other file")


@check("medium", ROOM, "Remove the blobs that were found.")
def test_no_unused_blobs(cache: Facts, compare: Compare) -> None:
    """Every blob belongs to a file of the snapshot: none only takes up space (R-CACHE)."""
    compare.none(cache, cache["unused_blobs"], "no unused blob")


@check("high", "Another model might be served, without its licence on the image.", "Remove its folder.")
def test_only_this_model(cache: Facts, compare: Compare) -> None:
    """No other model is on the image (R-MODEL)."""
    compare.none(cache, cache["other_repos"], "no other model")


@check("high", "A worker that is asked for `main` would load the other revision.", "Remove what was found.")
def test_only_this_revision(cache: Facts, compare: Compare) -> None:
    """No other revision of the model is on the image (R-MODEL)."""
    compare.none(cache, cache["other_revisions"], "no other snapshot")
    compare.none(cache, cache["other_refs"], "no name of another revision")


@check(
    "critical",
    "A worker that cannot read its weights does not start.",
    "`chown` the cache to the worker's user.",
    asks=lambda expect: {"user": f"id --user {shlex.quote(expect.user)}"},
)
def test_cache_belongs_to_worker(answers: Answers, cache: Facts, compare: Compare) -> None:
    """The whole cache belongs to the worker's user, who can read it (R-SYSTEMD)."""
    user = answers["user"].out.strip()
    compare.equal(cache, [user], [str(owner) for owner in cache["owners"]])
    compare.none(cache, cache["unreadable"], "no file that its owner can't read")


@check(
    "high",
    "The licence asks for its notice wherever the model goes.",
    "Find what removed the notice, which comes from provision/rootfs.",
    asks=lambda expect: {"notice": f"cat {layout.NOTICE}"},
)
def test_licence_notice(answers: Answers, compare: Compare, expect: Expectations) -> None:
    """The notice that the model's licence asks for is on the image (R-MODEL)."""
    notice = answers["notice"]
    for wanted in ("FLUX.1 [dev] Non-Commercial License", expect.repo):
        compare.holds(
            notice, wanted in notice.out, wanted, "in the notice" if wanted in notice.out else notice.said
        )


def _int8(expect: Expectations) -> str | None:
    return None if expect.precision == "int8" else "weights.precision is bf16: there is no int8 checkpoint"


@check("critical", "The worker would serve in another precision than was tried.", "Bake again.")
def test_int8_is_there_if_wanted(checkpoint: Facts, compare: Compare, expect: Expectations) -> None:
    """An int8 checkpoint of the pinned revision is there if the profile says int8, else none (R-MODEL)."""
    found = checkpoint["revision"] if checkpoint["there"] else None
    compare.equal(checkpoint, expect.revision if expect.precision == "int8" else None, found)


@check("critical", "A checkpoint with a missing or cut file does not load.", "Bake again.", applies=_int8)
def test_int8_is_whole(checkpoint: Facts, compare: Compare) -> None:
    """An int8 checkpoint has every file that its provenance names, in its size, and no other (R-MODEL)."""
    compare.equal(checkpoint, "there", "there" if checkpoint["there"] else "not there")
    for what in ("missing", "wrong_size", "extra"):
        compare.none(checkpoint, checkpoint.get(what, ["unknown"]), f"no file is {what.replace('_', ' ')}")


@check(
    "high",
    "Int8 that draws something else is another model.",
    "Look at both pictures of the report; serve bfloat16 on a larger type until it is understood.",
    applies=_int8,
)
def test_int8_draws_like_bf16(checkpoint: Facts, compare: Compare) -> None:
    """An int8 checkpoint drew what bfloat16 draws: their difference has a PSNR of 20 dB or more (R-MODEL)."""
    psnr = checkpoint.get("psnr") if checkpoint["there"] else 0.0
    # Two pictures that are the same have none.
    told = "the same picture" if psnr is None else f"{psnr} dB"
    compare.holds(checkpoint, psnr is None or psnr >= LOWEST_PSNR, f"{LOWEST_PSNR} dB or more", told)


@check(
    "high", "Whoever can change the checkpoint can change what is drawn.", "`chown -R root`.", applies=_int8
)
def test_int8_is_roots(checkpoint: Facts, compare: Compare) -> None:
    """Everybody can read an int8 checkpoint and only root can change it (R-SYSTEMD)."""
    compare.equal(checkpoint, [ROOT], checkpoint.get("owners"))
    compare.none(checkpoint, checkpoint.get("writable", ["unknown"]), "no file that others can write to")
    compare.none(checkpoint, checkpoint.get("unreadable", ["unknown"]), "no file that others can't read")


@pytest.fixture
def loaded(model: Facts) -> Facts:
    """What was seen of the loaded pipeline; without one, the checks of it are not run."""
    if model["loaded"] is None:
        pytest.fail("the model does not load: see weights.loads_offline", pytrace=False)
    found = Facts(model["loaded"])
    found.by = model.by
    return found


@check(
    "critical",
    "A worker that needs the Hub to start fails where the Hub, or the way to it, does.",
    "Read the error: a file is missing, or a package has changed what it loads.",
    asks=lambda expect: {"user": f"id --user {shlex.quote(expect.user)}"},
)
def test_loads_offline(answers: Answers, model: Facts, compare: Compare) -> None:
    """The model loads from the disk as the worker's user, cut off from every network (R-CACHE)."""
    compare.equal(model, ["lo"], model["interfaces"])
    compare.equal(answers["user"], answers["user"].out.strip(), str(model["user"]))
    parameters = model["loaded"]["parameters"] if model["loaded"] else {}
    right = bool(parameters) and all(count > 0 for count in parameters.values())
    compare.holds(model, right, "components with parameters", model["error"] or parameters)


@check("critical", "FLUX.1-dev is what was agreed; it is never replaced.", "Set `weights.revision` right.")
def test_is_flux_dev(loaded: Facts, compare: Compare) -> None:
    """The model is FLUX.1-dev: a FluxPipeline whose transformer takes a guidance (R-MODEL)."""
    compare.equal(loaded, "FluxPipeline", loaded["class"])
    kind = "FLUX.1-dev, with guidance" if loaded["guidance"] else "FLUX.1-schnell, without guidance"
    compare.equal(loaded, "FLUX.1-dev, with guidance", kind)
    wanted = {"transformer", "text_encoder", "text_encoder_2", "vae"}
    compare.none(loaded, sorted(wanted - set(loaded["parameters"])), "no missing component")


@check(
    "high", "float16 overflows in FLUX: black pictures. int8 is the profile's choice alone.", "Bake again."
)
def test_precision(loaded: Facts, compare: Compare, expect: Expectations) -> None:
    """Every component computes in bfloat16; in int8 are the profile's choice and nothing else (R-DTYPE)."""
    wanted = ["torch.bfloat16"]
    wrong = {name: kinds for name, kinds in loaded["dtypes"].items() if kinds != wanted}
    compare.none(loaded, wrong, "torch.bfloat16 alone")
    compare.equal(loaded, expect.precision, loaded["precision"])
    compare.equal(loaded, QUANTIZED if expect.precision == "int8" else [], loaded["quantized"])


@check(
    "high",
    "Offload moves weights over PCIe at each step: 60 s a step and more.",
    "Serve on a type whose memory holds the model (docs/fit.md), or in int8.",
)
def test_no_offload(loaded: Facts, compare: Compare) -> None:
    """No part of the model is set up to move between CPU and GPU (R-OFFLOAD)."""
    compare.none(loaded, loaded["hooked"], "no component with a hook")
