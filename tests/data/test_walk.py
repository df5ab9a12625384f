"""What is below a folder, and what is kept of it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_folders import RED, colours, paint

from unnoise.data import kept, walk
from unnoise.data.folders import ImageFolder
from unnoise.data.given import given_pictures
from unnoise.data.memory import Removed, Unreadable

ODD = os.fsdecode(b"caf\xe9 \xff.png")
"""A name that is no UTF-8."""


def names(root: Path) -> list[str]:
    return walk.walk(root).names


Image.init()
DEPTH = {".xbm": "1", ".msp": "1", ".blp": "P"}  # formats that hold no colours, or 256
WRITTEN = sorted(
    suffix for suffix in walk.suffixes() if Image.registered_extensions()[suffix] in Image.SAVE
)


@pytest.mark.parametrize("suffix", WRITTEN)
def test_every_format_that_pillow_writes_is_read_by_training_and_evaluation(tmp_path, suffix):
    picture = Image.new("RGB", (32, 32), RED).convert(
        DEPTH.get(suffix, "RGB"), dither=Image.Dither.NONE
    )
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / f"picture{suffix.upper()}"
    picture.save(path, Image.registered_extensions()[suffix])
    images = ImageFolder(str(tmp_path / "in"), 8, validation_share=1e-9).images("train")
    wanted = torch.tensor(picture.convert("RGB").getpixel((16, 16)))
    for pixels in (images.read(torch.arange(1)), given_pictures(tmp_path / "in")):
        middle = pixels[0, :, pixels.shape[2] // 2, pixels.shape[3] // 2].int()
        assert (middle - wanted).abs().max() <= 3


@pytest.mark.parametrize("suffix", [".pdf", ".eps", ".ps", ".mpg", ".wmf", ".h5", ".txt", ".mp4"])
def test_what_is_no_raster_picture_is_left_out_and_said(tmp_path, suffix, capsys):
    colours(tmp_path)
    for number in range(3):
        (tmp_path / "cats" / f"{number}{suffix}").write_bytes(b"x")
    (tmp_path / "dogs" / "README").write_bytes(b"x")
    source = ImageFolder(str(tmp_path), 8)
    source.check()
    ImageFolder(str(tmp_path), 8).check()
    said = f"data.root {tmp_path}: 4 files skipped: {suffix} 3, no suffix 1\n"
    assert capsys.readouterr().err == said, "once"


def test_hidden_and_system_files_are_left_out_alike(tmp_path, capsys):
    paint(tmp_path / "a" / "1.png")
    paint(tmp_path / "a" / "2.png")
    system = "__MACOSX @eaDir .git .ipynb_checkpoints $RECYCLE.BIN lost+found".split()
    for name in system:
        paint(tmp_path / name / "deep" / "1.png")
        paint(tmp_path / "a" / name / "1.png")
    paint(tmp_path / "a" / "._1.png")
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini"):
        (tmp_path / "a" / name).write_bytes(b"x")
    source = ImageFolder(str(tmp_path), 8, validation_share=1e-9)
    assert source.check() == 2
    assert source.class_names() == ("a",)
    assert len(given_pictures(tmp_path)) == 2
    assert capsys.readouterr().err == ""


def test_links_are_followed_but_not_in_circles(tmp_path):
    paint(tmp_path / "elsewhere" / "deep" / "1.png")
    root = tmp_path / "root"
    paint(root / "a" / "1.png")
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "2.png").symlink_to(root / "a" / "1.png")
    (root / "a" / "above").symlink_to(root)
    (root / "a" / "self").symlink_to(root / "a")
    (root / "a" / "nowhere.png").symlink_to(tmp_path / "gone.png")
    (root / "a" / "itself.png").symlink_to(root / "a" / "itself.png")
    found = walk.walk(root)
    assert found.names == ["a/1.png", "a/2.png", "b/deep/1.png"]
    assert found.left_out() == "4 files skipped: link to a folder above 2, broken link 2"


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.png"))
        assert walk.walk(tmp_path).left_out() == "2 files skipped: no file 2"


def test_the_order_is_that_of_sorted_paths(tmp_path):
    for name in ("b/1", "B/1", "a-b/1", "a/z", "a/é", "a/10", "a/2", "a.b/1", "a", "é/1", "a/c/1"):
        paint(tmp_path / f"{name}.png")
    paths = sorted(path for path in tmp_path.rglob("*.png"))
    assert names(tmp_path) == [path.relative_to(tmp_path).as_posix() for path in paths]


def test_a_folder_deeper_than_python_s_stack(tmp_path):
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("d", dir_fd=folder)
        above, folder = folder, os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(above)
    os.close(os.open("1.png", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.close(folder)
    assert names(tmp_path) == ["d/" * 1100 + "1.png"]
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # Python could not


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take UTF-8 only")
def test_names_that_are_no_utf_8(tmp_path):
    for number in range(30):
        paint(tmp_path / "a" / f"{number}{ODD}", (number, 0, 0))
    images = ImageFolder(str(tmp_path), 8).images("train")
    assert len(images.fingerprint) == 64
    seen = [name for name, _ in images.contents()]
    assert all(name.endswith(ODD) for name in seen)
    assert images.read(torch.arange(len(images)))[:, 0, 0, 0].tolist() == [
        int(name.removeprefix("a/").removesuffix(ODD)) for name in seen
    ]
    Path(images.path(0)).write_bytes(b"x")
    with pytest.raises(Unreadable) as error:
        images.read(torch.arange(1))
    assert ODD in str(error.value)
    with pytest.raises(ValueError, match="is not a picture") as said:
        given_pictures(tmp_path)
    assert ODD in str(said.value)


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    paint(tmp_path / "a" / "1.png")

    def scandir(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(
        ValueError, match=rf"data.root {tmp_path} cannot be read: Permission denied"
    ):
        ImageFolder(str(tmp_path), 8).check()


@pytest.fixture
def keeping(tmp_path, monkeypatch):
    """A folder whose digests are kept, however small it is and new its files are."""
    monkeypatch.setenv("UNNOISE_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "WORTH_KEEPING", -1)
    monkeypatch.setattr(walk, "_SETTLED", -(10**12))
    colours(tmp_path / "in")
    return tmp_path / "in"


def train(root: Path, **more):
    return ImageFolder(str(root), 8, validation_share=1e-9, **more).images("train")


@pytest.fixture
def reads(monkeypatch):
    """The files whose bytes are read for their digests."""
    seen: list[str] = []

    def opened(path, *args, **kwargs):
        seen.append(Path(path).name)
        return open(path, *args, **kwargs)

    monkeypatch.setattr(kept, "open", opened, raising=False)
    return seen


def test_only_new_and_changed_files_are_read_again(keeping, reads):
    first = train(keeping)
    before, contents = first.fingerprint, list(first.contents())
    assert len(reads) == len(set(reads)) == 40
    reads.clear()
    assert train(keeping).fingerprint == before
    assert list(train(keeping).contents()) == contents
    assert reads == []
    paint(keeping / "cats" / "1.png", (0, 0, 99))
    paint(keeping / "cats" / "new.png")
    (keeping / "cats" / "3.png").unlink()
    changed = train(keeping).fingerprint
    assert sorted(reads) == ["1.png", "new.png"]
    (file,) = (keeping.parent / "cache" / "listings").iterdir()
    file.unlink()
    assert train(keeping).fingerprint == changed != before


def test_a_change_that_leaves_size_and_time_is_seen(keeping, reads):
    before, path = train(keeping).fingerprint, keeping / "cats" / "1.png"
    about, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    reads.clear()
    assert train(keeping).fingerprint != before
    assert reads == ["1.png"]


def test_a_file_that_was_just_written_is_read_again(keeping, reads, monkeypatch):
    monkeypatch.setattr(walk, "_SETTLED", 2 * 10**9)
    train(keeping).fingerprint  # noqa: B018
    reads.clear()
    train(keeping).fingerprint  # noqa: B018
    assert len(reads) == 40


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "shapes", "keys", "unwritable"])
def test_a_damaged_or_unwritable_cache_is_not_used(keeping, reads, damage):
    before = train(keeping).fingerprint
    (file,) = (keeping.parent / "cache" / "listings").iterdir()
    parts = dict(np.load(file))
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-30])
    elif damage == "shapes":
        np.savez(file, **parts | {"digests": parts["digests"][:-1]})
    elif damage == "keys":
        np.savez(file, names=parts["names"])
    elif damage == "unwritable":
        file.unlink()
        file.parent.rmdir()
        file.parent.write_bytes(b"no folder")
    else:
        file.write_bytes(b"" if damage == "empty" else b"no archive")
    reads.clear()
    assert train(keeping).fingerprint == before
    assert len(reads) == 40


def test_files_found_readable_are_not_decoded_again(keeping, monkeypatch):
    (keeping / "cats" / "5.png").write_bytes(b"x")
    decoded: list[int] = []
    decode = kept.KnownFiles.problems

    def counted(self, rows, act):
        return decode(self, rows, lambda row: (decoded.append(row), act(row)))

    monkeypatch.setattr(kept.KnownFiles, "problems", counted)
    first = train(keeping, quarantine=1)
    assert len(decoded) == 40
    decoded.clear()
    again = train(keeping, quarantine=1)
    assert len(decoded) == 1, "only the unreadable one"
    assert again.quarantined == first.quarantined != []
    assert again.fingerprint == first.fingerprint
    decoded.clear()
    ImageFolder(str(keeping), 4, validation_share=1e-9, quarantine=1).images("train")
    assert len(decoded) == 40, "another size"


def test_a_file_that_is_removed_while_the_folder_is_read_is_named(tmp_path):
    colours(tmp_path)
    images = train(tmp_path)
    (tmp_path / "cats" / "7.png").unlink()
    message = rf"{tmp_path}/cats/7.png,? was removed after its folder was listed"
    with pytest.raises(Removed, match=message):
        images.fingerprint  # noqa: B018
    with pytest.raises(Removed, match=message):
        images.read(torch.arange(len(images)))


def test_the_fingerprint_of_a_folder_is_that_of_earlier_versions(tmp_path):
    for name, content in (("b/10.png", b"10"), ("a/1.png", b"1"), ("a/2.png", b"2")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    told = "bd5fe8305172ed4451141fb4e5f9007368ab76cd76c81f900acefde6fa8e6c45"  # of 0.2
    assert train(tmp_path).fingerprint == told
