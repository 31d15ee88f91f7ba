"""Ids of AMIs in files: what is found, what is told, and what is never skipped in silence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bake.lifecycle import reference_files
from bake.lifecycle.reference_files import Searched, search

AMI, SHORT = "ami-0123456789abcdef0", "ami-01234567"


def found(*places: Path) -> dict[str, str]:
    """Where each AMI is, as it is told."""
    return {image: str(one) for image, one in search(places).mentions}


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        pytest.param("main.tf", f'resource "x" "y" {{\n  ami = "{AMI}"\n}}\n', 2, id="Terraform"),
        pytest.param("prod.tfvars", f'ami="{AMI}"', 1, id="variables"),
        pytest.param("terraform.tfstate", f'{{"attributes":{{"image_id":"{AMI}"}}}}', 1, id="state"),
        pytest.param("stack.yaml", f"Mappings:\n  eu:\n    x: {AMI}\n", 3, id="CloudFormation"),
        pytest.param("stack.template", f'{{"Ref": "{AMI}"}}', 1, id="a template"),
        pytest.param("notes", f"we still run {AMI}.", 1, id="any other"),
        pytest.param("x.json", f"[{' ' * 300}{AMI}]", 1, id="one long line"),
    ],
)
def test_any_text_that_names_it_counts(tmp_path: Path, name: str, text: str, line: int) -> None:
    file = tmp_path / "deep" / "er" / name
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert found(tmp_path)[AMI] == found(file)[AMI] == f"file {file}:{line}"


def test_short_and_long_ids_are_told_apart_on_the_safe_side(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(f"{SHORT} {AMI}0 AMI-0123 ami-012 xami-89abcdef")
    assert set(found(tmp_path)) == {SHORT, AMI, "ami-89abcdef"}


def test_an_id_at_the_end_of_a_piece_is_found_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_files, "CHUNK", 64)
    for before in range(40, 130):
        (tmp_path / "a").write_text("\n" * before + AMI + "\n" * 70)
        assert found(tmp_path)[AMI] == f"file {tmp_path / 'a'}:{before + 1}", before


def test_utf_16_and_binaries_are_searched_and_told(tmp_path: Path) -> None:
    (tmp_path / "wide.json").write_text(f'"{AMI}"', encoding="utf-16")
    (tmp_path / "plugin").write_bytes(b"\x7fELF\0\0\x01" + SHORT.encode() + b"\0")
    searched = search([tmp_path])
    assert {image for image, _ in searched.mentions} == {AMI, SHORT}
    assert searched.unread == {}
    (note,) = searched.notes
    assert str(tmp_path / "wide.json") in note
    assert "are no text: only ids that stand in them as they are" in note


def test_bytes_that_are_no_utf_8_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"\xe9\xff " + AMI.encode())
    assert set(found(tmp_path)) == {AMI, AMI[:12]}


def test_loops_and_links_end_and_each_file_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.tf").write_text(AMI)
    (tmp_path / "real" / "up").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "real")
    (tmp_path / "dangling").symlink_to("nowhere")
    searched = search([tmp_path, tmp_path / "real"])
    assert [image for image, _ in searched.mentions].count(AMI) == 1
    assert searched.unread == {}
    assert searched.odd == {str(tmp_path / "dangling"): "it is a link to nothing"}
    assert searched.notes == (f"{tmp_path / 'dangling'} was left out: it is a link to nothing",)


def test_a_link_to_a_file_elsewhere_is_followed(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "elsewhere.tf").write_text(AMI)
    (tmp_path / "here" / "main.tf").symlink_to(tmp_path / "elsewhere.tf")
    assert found(tmp_path / "here")[AMI] == f"file {tmp_path / 'here' / 'main.tf'}:1"


def test_git_is_left_out_and_terraforms_own_folder_is_not(tmp_path: Path) -> None:
    for folder in (".git", ".terraform"):
        (tmp_path / folder).mkdir()
    (tmp_path / ".git" / "packed").write_text(AMI)
    assert found(tmp_path) == {}
    (tmp_path / ".terraform" / "terraform.tfstate").write_text(AMI)
    assert AMI in found(tmp_path)


def test_what_is_no_file_is_told_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    searched = search([tmp_path])
    assert (searched.mentions, searched.odd) == ([], {str(tmp_path / "pipe"): "it is no file"})


def test_a_file_that_is_too_large_is_unread(tmp_path: Path) -> None:
    huge = tmp_path / "huge.tfstate"
    huge.touch()
    os.truncate(huge, reference_files.LARGEST + 1)
    searched = search([tmp_path])
    assert "bytes; up to 1,073,741,824 are read" in searched.why_unread


def test_what_may_not_be_read_is_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the refusal is made here."""
    (tmp_path / "secret.tfstate").write_text(AMI)
    (tmp_path / "closed").mkdir()
    before_open, before_list = Path.open, Path.iterdir

    def refuse(self: Path, *arguments: object) -> object:
        if self.name in ("secret.tfstate", "closed"):
            raise PermissionError(13, "Permission denied")
        return (before_open if arguments else before_list)(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "iterdir", refuse)
    searched = search([tmp_path])
    assert searched.unread == {
        str(tmp_path / name): "Permission denied" for name in ("closed", "secret.tfstate")
    }


def test_many_are_told_in_short() -> None:
    many = Searched(binary=[f"b{n}" for n in range(7)], unread={f"u{n}": "no" for n in range(7)})
    assert many.notes[0].startswith("b0, b1, b2, b3, b4 and 2 more are no text")
    assert many.why_unread == "u0: no; u1: no; u2: no; u3: no; u4: no; and 2 more"
    assert Searched().why_unread == ""
