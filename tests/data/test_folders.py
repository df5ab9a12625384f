import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.data.folders import ImageFolder
from unnoise.data.memory import Removed, Unreadable
from unnoise.data.splits import held_out
from unnoise.data.sprites import SpritesFile, SpriteSheet
from unnoise.data.stream import split_loader

RED, BLUE = (255, 0, 0), (0, 0, 255)


def paint(path: Path, colour: tuple[int, int, int] = RED, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def colours(root: Path, n: int = 40) -> None:
    """Pictures in two class folders; the file's number is the pixels' blue."""
    for i in range(n):
        paint(root / ("cats" if i % 2 else "dogs") / f"{i}.png", (0, 0, i))


def all_rows(images) -> torch.Tensor:
    return images.read(torch.arange(len(images)))


def paths(root: Path, split: str, **settings) -> set[str]:
    images = ImageFolder(str(root), 8, **settings).images(split)
    return {name for name, _ in images.contents()}


def test_classes_are_the_first_folders(tmp_path):
    paint(tmp_path / "dogs" / "deep" / "er" / "a.png")
    paint(tmp_path / "cats" / "b.png", BLUE)
    source = ImageFolder(str(tmp_path), 8, classes=2, validation_share=1e-9)
    assert source.class_names() == ("cats", "dogs")
    images = source.images("train")
    assert images.labels.tolist() == [0, 1]
    assert all_rows(images)[:, :, 0, 0].tolist() == [list(BLUE), list(RED)]


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".gif", ".webp", ".jpg", ".JPEG"])
def test_formats(tmp_path, suffix):
    paint(tmp_path / f"a{suffix}", size=(12, 8))
    images = ImageFolder(str(tmp_path), 8, validation_share=1e-9).images("train")
    pixels = all_rows(images)
    assert pixels.shape == (1, 3, 8, 8)
    assert pixels.dtype == torch.uint8
    error = pixels[0].int() - torch.tensor(RED).view(3, 1, 1)
    assert error.abs().max() <= 3  # JPEG and WebP are lossy


def test_other_and_hidden_files_are_ignored(tmp_path):
    paint(tmp_path / "a.png")
    paint(tmp_path / ".thumbnails" / "a.png")
    (tmp_path / "notes.txt").write_text("a")
    (tmp_path / "._b.png").write_bytes(b"resource fork")
    source = ImageFolder(str(tmp_path), 8, validation_share=1e-9)
    assert source.class_names() == ()
    assert len(source.images("train")) == 1


def test_splits_are_a_partition_of_about_the_share(tmp_path):
    colours(tmp_path, n=400)
    held, kept = paths(tmp_path, "validation"), paths(tmp_path, "train")
    assert not held & kept
    assert len(held | kept) == 400
    assert abs(len(held) - 40) < 4 * (400 * 0.1 * 0.9) ** 0.5


def test_images_stay_on_their_side_when_others_come(tmp_path):
    colours(tmp_path, n=40)
    before = paths(tmp_path, "validation", validation_share=0.3)
    colours(tmp_path, n=60)
    assert before
    assert {p for p in paths(tmp_path, "validation", validation_share=0.3) if p in before} == before
    assert not before & paths(tmp_path, "train", validation_share=0.3)
    assert before <= paths(tmp_path, "validation", validation_share=0.6)


@pytest.mark.parametrize("train", ["train", "Training"])
@pytest.mark.parametrize(
    "name", ["validation", "valid", "val", "dev", "test", "testing", "Test", "VAL"]
)
def test_split_folders_are_taken_at_their_word(tmp_path, train, name):
    for i in range(20):
        paint(tmp_path / train / "cats" / f"{i}.png")
    paint(tmp_path / train / "dogs" / "y.png")
    paint(tmp_path / name / "dogs" / "x.png")
    paint(tmp_path / name / "cats" / "x.png")
    source = ImageFolder(str(tmp_path), 8)
    assert source.class_names() == ("cats", "dogs")
    assert source.images("train").labels.tolist() == [0] * 20 + [1]
    assert source.images("validation").labels.tolist() == [0, 1]
    assert source.check() == 21


def test_of_several_splits_for_validation_the_first_is_taken_and_the_others_are_said(
    tmp_path, capsys
):
    for number, split in enumerate(("train", "Test", "dev", "val")):
        paint(tmp_path / split / "a.png", (number, 0, 0))
    paint(tmp_path / "banner.png")
    source = ImageFolder(str(tmp_path), 8)
    source.check()
    assert all_rows(source.images("validation"))[:, 0, 0, 0].tolist() == [3]
    said = (
        "Test is not read, since val is; dev is not read, since val is; pictures beside the split"
    )
    assert said in capsys.readouterr().err


def test_a_class_may_be_called_train(tmp_path):
    paint(tmp_path / "train" / "a.png")
    paint(tmp_path / "car" / "a.png")
    assert ImageFolder(str(tmp_path), 8, validation_share=1e-9).class_names() == ("car", "train")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ("train/a/1 val/a/1 cats/1", "has train, val, which reads as a split, beside cats: rename"),
        ("test/1 cats/1 dogs/1", "has test, which reads as a split, beside cats, dogs: rename"),
        ("train/a/1 a/1", "has train, which reads as a split, beside a: rename"),
        ("train/a/1 train/b/1", "has train, but no pictures in val: add them there, or hold out"),
        ("test/1", "has test, but no pictures in train"),
        ("train/1 Train/1 val/1", "has Train and train: put all that is for training into one"),
        (
            "sets/train/a/1 sets/test/a/1",
            r"has splits \(test, train\) inside sets: name that folder",
        ),
        ("train/a/1 train/b/1 val/a/1", "train has the class b, val has not"),
        ("train/a/1 val/a/1 val/b/1", "val has the class b, train has not"),
        ("train/a/1 val/1", "val has pictures outside any class folder, train has not"),
        ("train/a/1 train/1 val/a/1", r"train has images of its own beside class folders \(a\)"),
        ("train/a/1 train/b/x.heic val/a/1", r"folder b without pictures \(1 file skipped: .heic"),
        ("a/1 b/x.heic b/y/z.txt", r"folder b without pictures \(2 files skipped: .heic 1, .txt"),
        ("a/1 b/", r"a folder b without pictures \(it is empty\) among its class folders: remove"),
        ("a.txt b/c", r"has no images below it: 2 files skipped: .txt 1, no suffix 1"),
        ("a/", "has no images below it: there are no files at all"),
    ],
)
def test_a_class_never_vanishes_and_a_split_is_no_class(tmp_path, files, message):
    for name in files.split():
        path = tmp_path / name
        if name[-1].isdigit():
            paint(path.with_name(f"{path.name}.png"))
        elif name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
    with pytest.raises(
        (ValueError, FileNotFoundError), match=rf"^data\.root {tmp_path}.* ?{message}"
    ):
        ImageFolder(str(tmp_path), 8, validation_share=1e-9).check()


def test_a_class_without_training_pictures_is_named(tmp_path):
    held, kept = sorted(range(99), key=lambda k: not held_out(f"b/{k}.png".encode(), 0.1))[::98]
    paint(tmp_path / "a" / "1.png")
    paint(tmp_path / "b" / f"{held}.png")
    with pytest.raises(ValueError, match="all pictures of the class b fall to validation"):
        ImageFolder(str(tmp_path), 8).check()
    paint(tmp_path / "b" / f"{kept}.png")
    assert ImageFolder(str(tmp_path), 8).check() == 2


def test_numbers_in_class_names_are_in_order(tmp_path):
    names = "0 1 2 10 é class2 class10 class10b 01"
    for name in names.split():
        paint(tmp_path / name / "1.png")
        paint(tmp_path / name / "2.png")
    images = ImageFolder(str(tmp_path), 8, validation_share=1e-9)
    in_order = ("0", "01", "1", "2", "10", "class2", "class10", "class10b", "é")
    assert images.class_names() == in_order
    train = images.images("train")
    folders = [name.partition("/")[0] for name, _ in train.contents()]
    assert folders == sorted(folders), "the stream goes by path, as ever"
    assert [in_order[label] for label in train.labels] == folders


def test_in_memory_gives_the_same_images(tmp_path):
    colours(tmp_path)
    lazy = ImageFolder(str(tmp_path), 4, channels=1).images("train")
    eager = ImageFolder(str(tmp_path), 4, channels=1, in_memory=True).images("train")
    assert torch.equal(all_rows(lazy), eager.images)
    assert torch.equal(lazy.labels, eager.labels)
    assert len(lazy) > 20


def test_files_are_read_in_worker_processes(tmp_path):
    colours(tmp_path)
    images = ImageFolder(str(tmp_path), 8).images("train")
    batches = list(split_loader(images, batch_size=7, workers=2))
    assert torch.equal(torch.cat([batch["image"] for batch in batches]), all_rows(images))


def test_fingerprint_follows_pixels_and_labels(tmp_path):
    def fingerprint(channels: int = 3) -> str:
        source = ImageFolder(str(tmp_path), 8, channels=channels, validation_share=1e-9)
        return source.images("train").fingerprint

    paint(tmp_path / "a" / "1.png")
    paint(tmp_path / "b" / "2.png", BLUE)
    paint(tmp_path / "b" / "3.png", BLUE)
    first = fingerprint()
    assert fingerprint() == first
    (tmp_path / "b" / "2.png").rename(tmp_path / "a" / "2.png")
    moved = fingerprint()
    paint(tmp_path / "a" / "2.png", RED)
    assert len({first, moved, fingerprint(), fingerprint(channels=1)}) == 4


def test_an_unreadable_image_is_named(tmp_path):
    colours(tmp_path)
    images = ImageFolder(str(tmp_path), 8).images("train")
    broken = Path(images.path(3))
    broken.write_bytes(broken.read_bytes()[:40])
    assert images.read(torch.tensor([2, 4])).shape == (2, 3, 8, 8)
    with pytest.raises(ValueError, match=rf"image 3, {broken}, is unreadable"):
        images.read(torch.tensor([2, 3]))
    broken.unlink()
    with pytest.raises(Removed, match=rf"image 3, {broken}, was removed after its folder was"):
        images.read(torch.tensor([3]))


@pytest.fixture
def damaged(tmp_path):
    """Twelve training images in two classes, of which three cannot be read; and those that can."""
    for k in range(12):
        paint(tmp_path / "train" / "ab"[k // 6] / f"{k:02}.png", (20 * k, 0, 0))
    paint(tmp_path / "val" / "a" / "0.png")
    paint(tmp_path / "val" / "b" / "0.png")
    (tmp_path / "train" / "a" / "02.png").write_bytes(b"")
    (tmp_path / "train" / "a" / "05.png").write_text("<!doctype html><title>404</title>")
    last = tmp_path / "train" / "b" / "11.png"
    last.write_bytes(last.read_bytes()[:40])
    return tmp_path


@pytest.mark.parametrize("in_memory", [False, True])
def test_the_next_readable_image_stands_in_for_a_quarantined_one(damaged, in_memory):
    images = ImageFolder(str(damaged), 8, in_memory=in_memory, quarantine=3).images("train")
    red = images.read(torch.arange(12))[:, 0, 0, 0].tolist()
    assert red == [20 * k for k in (0, 1, 3, 3, 4, 6, 6, 7, 8, 9, 10, 0)]
    assert images.labels.tolist() == [0] * 5 + [1] * 6 + [0], "each has its own class"
    said = [
        (Path(line.split(",")[1].strip()).name, line.split("; ")[-1]) for line in images.quarantined
    ]
    folder = damaged / "train"
    assert said == [
        ("02.png", f"{folder}/a/03.png replaces it"),
        ("05.png", f"{folder}/b/06.png replaces it"),
        ("11.png", f"{folder}/a/00.png replaces it"),
    ]


def test_the_fingerprint_is_that_of_what_is_read(damaged):
    before = ImageFolder(str(damaged), 8, quarantine=3).images("train").fingerprint
    assert ImageFolder(str(damaged), 8, quarantine=9).images("train").fingerprint == before
    (damaged / "train" / "a" / "02.png").write_bytes(b"other damage")
    assert ImageFolder(str(damaged), 8, quarantine=3).images("train").fingerprint == before
    shutil.copy(damaged / "train" / "a" / "03.png", damaged / "train" / "a" / "02.png")
    repaired = ImageFolder(str(damaged), 8, quarantine=2).images("train")
    assert repaired.fingerprint == before, "the very picture that stood in"
    paint(damaged / "train" / "a" / "02.png", BLUE)
    assert ImageFolder(str(damaged), 8, quarantine=2).images("train").fingerprint != before


def test_one_image_too_many_is_told_with_all_of_them(damaged):
    with pytest.raises(Unreadable, match=r"3 images are unreadable, data.quarantine is 2") as error:
        ImageFolder(str(damaged), 8, quarantine=2).images("train")
    for name in ("image 2, ", "image 5, ", "image 11, "):
        assert name in str(error.value)
    assert ImageFolder(str(damaged), 8, quarantine=2).images("validation").quarantined == []


def test_an_empty_batch_can_be_read(tmp_path):
    colours(tmp_path)
    images = ImageFolder(str(tmp_path), 8).images("train")
    assert images.read(torch.empty(0, dtype=torch.int64)).shape == (0, 3, 8, 8)


def test_folders_that_do_not_fit(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data.root .*nowhere is not a folder"):
        ImageFolder(str(tmp_path / "nowhere"), 8).check()
    with pytest.raises(FileNotFoundError, match="has no images"):
        ImageFolder(str(tmp_path), 8).prepare()
    paint(tmp_path / "a.png")
    with pytest.raises(ValueError, match="no validation images among the 1 below"):
        ImageFolder(str(tmp_path), 8, validation_share=1e-9).images("validation")
    with pytest.raises(ValueError, match=r"classes is 2, but .* has 0 class folders"):
        ImageFolder(str(tmp_path), 8, classes=2).prepare()
    paint(tmp_path / "cats" / "a.png")
    with pytest.raises(ValueError, match="images of its own beside class folders"):
        ImageFolder(str(tmp_path), 8).prepare()


def sheet(tmp_path: Path, mode: str = "RGB") -> tuple[Path, np.ndarray]:
    """5 × 6 cells of 4 × 4: 25 distinct ones, then a repeat, and four of a single colour."""
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 256, (30, 4, 4, 3), dtype=np.uint8)
    cells[25] = cells[3]
    cells[26:] = np.array([0, 255, 7, 0], np.uint8)[:, None, None, None]
    pixels = cells.reshape(5, 6, 4, 4, 3).transpose(0, 2, 1, 3, 4).reshape(20, 24, 3)
    Image.fromarray(pixels).convert(mode).save(tmp_path / "sheet.png")
    return tmp_path / "sheet.png", cells[:25].transpose(0, 3, 1, 2)


def test_sheet_is_cut_into_its_distinct_cells(tmp_path):
    path, cells = sheet(tmp_path)
    source = SpriteSheet(str(path), image_size=4, cell=4, validation_share=0.3)
    source.prepare()
    train, validation = source.images("train"), source.images("validation")
    both = torch.cat([train.images, validation.images])
    assert len(validation) > 0
    assert {c.tobytes() for c in both.numpy()} == {c.tobytes() for c in cells}
    assert len(both) == 25
    assert not train.labels.any()


def test_sheet_enlarges_pixels(tmp_path):
    path, _ = sheet(tmp_path)
    small = SpriteSheet(str(path), image_size=4, cell=4).images("train").images
    large = SpriteSheet(str(path), image_size=12, cell=4, channels=3).images("train").images
    assert torch.equal(large[..., 1::3, 2::3], small)
    assert SpriteSheet(str(path), 8, 4, channels=1).images("train").images.shape[1:] == (1, 8, 8)


def test_transparent_sheet_cells_are_empty(tmp_path):
    path, _ = sheet(tmp_path, mode="RGBA")
    picture = Image.open(path)
    picture.paste((1, 2, 3, 0), (0, 0, 4, 4))
    picture.putpixel((1, 1), (9, 9, 9, 0))
    picture.save(path)
    source = SpriteSheet(str(path), image_size=4, cell=4, validation_share=0.3)
    assert len(source.images("train")) + len(source.images("validation")) == 24


def test_sheets_that_do_not_fit(tmp_path):
    path, _ = sheet(tmp_path)
    with pytest.raises(ValueError, match="image_size 6 is not a multiple of cell 4"):
        SpriteSheet(str(path), image_size=6, cell=4)
    with pytest.raises(ValueError, match="20×24 pixels does not divide into cells of 5×5"):
        SpriteSheet(str(path), image_size=5, cell=5).prepare()
    with pytest.raises(FileNotFoundError, match=r"data.root .* is not a file"):
        SpriteSheet(str(tmp_path), image_size=4, cell=4).check()
    path.write_text("<html>")
    with pytest.raises(ValueError, match=rf"{path} is unreadable"):
        SpriteSheet(str(path), image_size=4, cell=4).prepare()


@pytest.fixture
def course(tmp_path) -> tuple[Path, np.ndarray, np.ndarray]:
    """300 sprites of which the last 100 repeat the first, with another label."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (300, 16, 16, 3), dtype=np.uint8)
    kinds = rng.integers(0, 5, 300)
    pixels[200:], kinds[200:] = pixels[:100], (kinds[:100] + 1) % 5
    np.save(tmp_path / SpritesFile.pixels_name, pixels)
    np.save(tmp_path / SpritesFile.labels_name, np.eye(5)[kinds])
    return tmp_path, pixels, kinds


def test_course_sprites_are_distinct_and_split_by_what_they_show(course):
    folder, pixels, kinds = course
    source = SpritesFile(str(folder), validation_share=0.2)
    source.prepare()
    train, validation = source.images("train"), source.images("validation")
    label_of = {
        p.transpose(2, 0, 1).tobytes(): k for p, k in zip(pixels[:200], kinds, strict=False)
    }
    seen: list[bytes] = []
    for images in (train, validation):
        for sprite, label in zip(images.images.numpy(), images.labels.tolist(), strict=True):
            assert label == label_of[sprite.tobytes()]
            seen.append(sprite.tobytes())
    assert len(seen) == len(set(seen)) == 200
    assert abs(len(validation) - 40) < 4 * (200 * 0.2 * 0.8) ** 0.5


def test_course_split_does_not_depend_on_the_order(course):
    folder, pixels, kinds = course
    before = SpritesFile(str(folder)).images("validation").images.numpy()
    np.save(folder / SpritesFile.pixels_name, pixels[::-1])
    np.save(folder / SpritesFile.labels_name, np.eye(5)[kinds[::-1]])
    after = SpritesFile(str(folder)).images("validation").images.numpy()
    assert {s.tobytes() for s in before} == {s.tobytes() for s in after}


def test_course_files_that_are_not_what_they_should_be(course):
    folder, pixels, _ = course
    first, second = folder / SpritesFile.pixels_name, folder / SpritesFile.labels_name
    np.save(second, np.ones((300, 5)))
    with pytest.raises(ValueError, match=r"not one-hot rows \(300, 5\)"):
        SpritesFile(str(folder)).prepare()
    np.save(second, np.eye(5)[:3])
    with pytest.raises(ValueError, match=r"float64 \(3, 5\), not one-hot rows \(300, 5\)"):
        SpritesFile(str(folder)).prepare()
    np.save(first, pixels.astype(np.float32))
    with pytest.raises(ValueError, match=r"float32 .* not uint8 \(N, 16, 16, 3\)"):
        SpritesFile(str(folder)).prepare()
    np.save(first, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        SpritesFile(str(folder)).prepare()
    first.write_text("\n<!DOCTYPE html><html>")
    with pytest.raises(ValueError, match="a web page saved under that name"):
        SpritesFile(str(folder)).prepare()
    first.unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {SpritesFile.pixels_name}"):
        SpritesFile(str(folder)).prepare()


def test_course_settings_are_checked_at_once(tmp_path):
    with pytest.raises(ValueError, match="image_size 20 is not a multiple of the sprites' 16"):
        SpritesFile(str(tmp_path), image_size=20)
    with pytest.raises(ValueError, match="classes is 4, but the sprites have 5"):
        SpritesFile(str(tmp_path), classes=4)
