"""What is on the image, from the facts of a run: weights, pictures, disk."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bake.report.model import Part, Picture, StartTrace, TraceStage, WeightFile, Weights
from bake.report.run_directory import RunDirectory

LICENCE = "FLUX.1 [dev] Non-Commercial License"
FIRST = "first-image.png"
PAIR = ("bf16", "int8")
PNG = b"\x89PNG\r\n\x1a\n"


def weights(run: RunDirectory) -> Weights | None:
    """The model; its files as the lock has them, since nothing else is taken for downloaded."""
    lock, wanted = run.plan.get("lock") or {}, run.plan.get("profile", {}).get("weights", {})
    if not lock.get("files") or not wanted:
        return None
    fetched, int8 = run.json("facts/weights.json"), run.json("facts/int8.json")
    files = [
        WeightFile(path=path, bytes=file["bytes"], hash=_hash(file)) for path, file in lock["files"].items()
    ]
    repo, planned = wanted["repo"], run.plan.get("weights", {}).get("files", {})
    removed = bool(int8.get("source_removed"))
    return Weights(
        repo=repo,
        revision=lock["revision"],
        precision=wanted["precision"],
        licence=LICENCE,
        licence_url=f"https://huggingface.co/{repo}/blob/main/LICENSE.md",
        files=tuple(files),
        bytes=(0 if removed else sum(one.bytes for one in files)) + int8.get("bytes", 0),
        planned_bytes=sum(one["bytes"] for one in planned.values()),
        fetched=fetched["fetched"] > 0 if fetched else None,
        int8_psnr_db=int8.get("comparison", {}).get("psnr"),
    )


def trace(run: RunDirectory) -> StartTrace | None:
    """The trace of a start, without its ranges: the image has those."""
    told = run.json("facts/trace.json")
    if not told:
        return None
    stages = told.get("stages", ())
    return StartTrace(
        recorded=told.get("recorded", "none"),
        why=told.get("why", ""),
        sha256=told.get("sha256"),
        stages=tuple(TraceStage(name=one["name"], bytes=one["bytes"], files=one["files"]) for one in stages),
    )


def _hash(file: Mapping[str, Any]) -> str:
    """A file of no known hash is named as such: nobody compared it."""
    if file.get("sha256"):
        return f"sha256:{file['sha256']}"
    return f"git-sha1:{file['git_oid']}" if file.get("git_oid") else "not known"


def pictures(run: RunDirectory) -> tuple[Picture, ...]:
    """The first image, and with int8 the pair that was compared."""
    found = [run.part(FIRST, lambda: _first(run), None)]
    found += [run.part(f"{name}.png", partial(_of_pair, run, name), None) for name in PAIR]
    return tuple(one for one in found if one is not None)


def _first(run: RunDirectory) -> Picture | None:
    told = run.json("facts/boot-check.json")
    if not told or (drawn := _png(run.path / FIRST)) is None:
        return None
    sha256, width, height = drawn
    same = told.get("sha256") in ("", None, sha256)
    return Picture(
        title="First image",
        file=FIRST,
        sha256=sha256,
        width=width,
        height=height,
        prompt=told["prompt"],
        seed=told["seed"],
        steps=told["steps"],
        precision=told["precision"],
        device=told["device"],
        instance=told.get("instance"),
        instance_type=told.get("instance_type"),
        ready_seconds=told.get("ready_seconds"),
        seconds=told.get("seconds"),
        memory_bytes=told.get("memory_bytes"),
        note=None if same else "the file is another one than the boot check fetched",
    )


def _of_pair(run: RunDirectory, precision: str) -> Picture | None:
    told = run.json("facts/int8.json").get("comparison")
    if not told or (drawn := _png(run.path / f"{precision}.png")) is None:
        return None
    job, psnr = told["job"], told.get("psnr")
    likeness = "no pixel differs" if psnr is None else f"PSNR {psnr} dB between the two"
    return Picture(
        title=f"Comparison in {precision}",
        file=f"{precision}.png",
        sha256=drawn[0],
        width=drawn[1],
        height=drawn[2],
        prompt=job.get("prompt", PROMPT),
        seed=job["seed"],
        steps=job["steps"],
        precision=precision,
        device=told["drawn_on"][precision],
        seconds=told["seconds"].get(precision),
        note=f"drawn on the builder; {likeness}",
    )


PROMPT = "a lighthouse at dawn"
"""Of the comparison (provision/quantize.py)."""


def _png(file: Path) -> tuple[str, int, int] | None:
    """The sha256, width and height of a PNG; None if there is none."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    if not content.startswith(PNG) or len(content) < 24:
        return None
    width, height = struct.unpack(">II", content[16:24])
    return hashlib.sha256(content).hexdigest(), width, height


def disk(run: RunDirectory) -> tuple[Part, ...]:
    """The root disk: as measured before the seal, or else as the plan has it."""
    sealed = run.json("facts/inventory-sealed.json").get("disk") or {}
    if sealed.get("total") and sealed.get("used") is not None:
        return _measured(run, sealed)
    measured = run.json("base-content.json").get("disk") or {}
    parts = (measured or run.plan.get("disk") or {}).get("parts", [])
    return tuple(
        Part(name=one["name"], bytes=one["bytes"], measured=one["source"] == "measured on the builder")
        for one in parts
    )


def _measured(run: RunDirectory, sealed: Mapping[str, Any]) -> tuple[Part, ...]:
    base = (run.json("facts/inventory-base.json").get("disk") or {}).get("used") or 0
    named = {"base AMI": base, "environment": sealed.get("environment") or 0}
    named |= {"weights": sealed.get("weights") or 0, "int8 copy": sealed.get("int8") or 0}
    # What base.remove took is still in the base AMI's part.
    named = {"base AMI": base, "packages": max(sealed["used"] - sum(named.values()), 0), **named}
    named |= {"free": sealed.get("free") or 0}
    named |= {"file system": max(sealed["total"] - sealed["used"] - named["free"], 0)}
    return tuple(Part(name=name, bytes=size, measured=True) for name, size in named.items() if size)
