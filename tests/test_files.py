"""Where nothing can be written is known before; what fails while writing leaves all as it was."""

import errno
import io

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.files import file_fault, folder_fault, not_written, write_durably


@pytest.mark.parametrize("fault", [folder_fault, file_fault])
def test_places_that_cannot_be_written(fault, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert "is a file, not a folder" in fault(tmp_path / "file" / "a" / "b")
    assert "leads nowhere" in fault(tmp_path / "link" / "a")
    assert "too long a name: 300 bytes, 255 at most" in fault(tmp_path / ("x" * 300) / "a" / "b")
    assert "/proc cannot be written to" in fault("/proc/nothing/here")
    assert fault(tmp_path / "new" / "newer") is None
    assert not (tmp_path / "new").exists()


def test_a_file_needs_room_for_the_name_it_has_while_it_is_written(tmp_path):
    longest = tmp_path / ("x" * 214 + ".pt")
    assert file_fault(longest) is None
    write_durably(longest, lambda path: path.write_text("x"))
    too_long = tmp_path / ("x" * 215 + ".pt")
    assert "too long a name" in file_fault(too_long)
    with pytest.raises(OSError, match="too long"):
        write_durably(too_long, lambda path: path.write_text("x"))
    assert "is a folder" in file_fault(tmp_path)
    assert "must end in .png" in file_fault(tmp_path / "a.jpg", ".png")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_probe_that_fails_says_why(code, tmp_path, monkeypatch):
    def full(**_):
        raise OSError(code, "as the system says")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    assert folder_fault(tmp_path) == f"{tmp_path} cannot be written to: as the system says"


WRITERS = {
    "text": lambda path: path.write_text("x" * 100_000),
    "torch": lambda path: torch.save(torch.zeros(100_000), path.open("wb")),
    "picture": lambda path: Image.effect_noise((400, 400), 90).save(path, "PNG"),
    "array": lambda path: np.savez(path.open("wb"), a=np.zeros(100_000)),
}


class Full(io.FileIO):
    """A file on a disk with room for 1000 bytes."""

    def write(self, content):
        if self.tell() + len(content) > 1000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(content)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_disk_that_fills_leaves_the_file_that_was_there(kind, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("whole")
    opened = io.open

    def limited(file, mode="r", *rest, **more):
        if any(letter in mode for letter in "wxa+"):
            raw = io.BufferedWriter(Full(file, mode.replace("b", "").replace("t", "")))
            return raw if "b" in mode else io.TextIOWrapper(raw)
        return opened(file, mode, *rest, **more)

    monkeypatch.setattr("io.open", limited)
    monkeypatch.setattr("builtins.open", limited)
    with pytest.raises(OSError, match="No space") as failed:
        write_durably(path, WRITERS[kind])
    monkeypatch.undo()
    assert failed.value.filename == str(path)
    assert not_written(failed.value) == f"{path} was not written: No space left on device"
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_are_no_fault_of_the_place():
    assert not_written(FileNotFoundError(errno.ENOENT, "none", "x")) is None
    assert not_written(ValueError("x")) is None
