"""Pictures and texts from files that the user names."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.data.given import check_picture, given_pictures, read_texts


@pytest.fixture
def pixels():
    return torch.randint(0, 256, (3, 3, 8, 8), generator=torch.Generator().manual_seed(0)).byte()


@pytest.mark.parametrize("form", ["npz", "npy", "folder"])
def test_pictures_are_read_as_they_were_written(form, pixels, tmp_path):
    array = pixels.permute(0, 2, 3, 1).numpy()
    path = tmp_path / f"pictures.{form}"
    if form == "npz":
        np.savez(path, arr_0=array)
    elif form == "npy":
        np.save(path, array)
    else:
        path.mkdir()
        for number, each in enumerate(array):
            Image.fromarray(each).save(path / f"{number}.png")
    assert torch.equal(given_pictures(path), pixels)


def test_what_is_no_picture_is_said(pixels, tmp_path):
    np.save(tmp_path / "float.npy", pixels.float().numpy())
    with pytest.raises(ValueError, match=r"float32 \(3, 3, 8, 8\), not pictures"):
        given_pictures(tmp_path / "float.npy")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no pictures in"):
        given_pictures(tmp_path / "empty")
    folder = tmp_path / "odd"
    folder.mkdir()
    for size in (8, 9):
        Image.new("RGB", (size, 8)).save(folder / f"{size}.png")
    with pytest.raises(ValueError, match=r"has 9 × 8 pixels.*has 8 × 8"):
        given_pictures(folder)
    (folder / "9.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"9\.png is not a picture that can be read"):
        given_pictures(folder)


def test_pickles_in_arrays_are_not_read(tmp_path):
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        given_pictures(tmp_path / "object.npy")


@pytest.mark.parametrize("content", [b"", b"PK", b"no array"])
def test_damaged_arrays_are_told(content, pixels, tmp_path):
    whole = tmp_path / "pictures.npz"
    np.savez(whole, pixels.permute(0, 2, 3, 1).numpy())
    for name, bytes_ in (("whole.npz", content), ("half.npz", whole.read_bytes()[:-40])):
        (tmp_path / name).write_bytes(bytes_)
        with pytest.raises(ValueError, match=rf"{name} is no whole (\.npz or \.npy file|archive)"):
            given_pictures(tmp_path / name)
    np.savez(tmp_path / "empty.npz")
    with pytest.raises(ValueError, match=r"empty\.npz is no whole"):
        given_pictures(tmp_path / "empty.npz")


def test_deep_pictures_are_read_by_the_range_of_the_data(tmp_path):
    Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(tmp_path / "deep.png")
    assert (given_pictures(tmp_path) == 15).all()
    assert (given_pictures(tmp_path, range=(0, 4095)) == 255).all()
    with pytest.raises(ValueError, match=r"deep\.png: it has 64 pixels, more than data.most"):
        given_pictures(tmp_path, most_pixels=63)


def test_a_folder_is_no_picture(tmp_path):
    with pytest.raises(ValueError, match=rf"{tmp_path} is a folder: name one picture in it"):
        check_picture(str(tmp_path))


def test_a_folder_is_read_as_for_training(pixels, tmp_path, capsys):
    for name in ("__MACOSX/x", ".trash/x", "b/10", "b/2", "a/1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        number = int(name[-1]) if name[-1].isdigit() else 0
        picture = Image.fromarray(pixels[number].permute(1, 2, 0).numpy())
        picture.save(tmp_path / f"{name}.tif")
    (tmp_path / "notes.txt").write_text("no picture")
    assert torch.equal(given_pictures(tmp_path), pixels[[1, 0, 2]])
    assert capsys.readouterr().err == f"{tmp_path}: 1 file skipped: .txt 1\n"


def test_texts_are_one_a_list_or_the_lines_of_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("two.txt").write_bytes("\ufeffa red knight\r\nзамок, ночь\r\n\r\n".encode())
    assert read_texts(None) is None
    assert read_texts("a, b") == ["a, b"]
    assert read_texts("") == [""]
    assert read_texts(["a", "@two.txt"]) == ["a", "@two.txt"]
    assert read_texts("@two.txt") == ["a red knight", "замок, ночь"]


@pytest.mark.parametrize(
    ("content", "given", "message"),
    [
        (b"", "@texts.txt", "texts.txt is empty: it should have a text on each line"),
        (b" \n\n", "@texts.txt", "texts.txt is empty"),
        (b"a\n\nb\n", "@texts.txt", "texts.txt, line 2 is empty"),
        (b"a\nb\n\xff\xfec\n", "@texts.txt", r"texts.txt is not UTF-8 \(line 3\)"),
        (b"a", "texts.txt", "texts.txt is a file: @texts.txt reads a text from each of its lines"),
        (b"a", "@other.txt", "there is no file other.txt; a text that begins with @ goes into a"),
        (b"a", "@.", "there is no file ."),
    ],
)
def test_files_of_texts_that_are_wrong_are_refused(content, given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_texts(given)
