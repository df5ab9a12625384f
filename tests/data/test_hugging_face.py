import hashlib
import io
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.data import hugging_face
from unnoise.data.folders import ImageFolder
from unnoise.data.hugging_face import HuggingFaceImages
from unnoise.data.stream import split_loader


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(hugging_face, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'unnoise\[huggingface\]'"):
        HuggingFaceImages(str(tmp_path), 8).prepare()


def test_classes_need_a_label_column():
    with pytest.raises(ValueError, match="classes is 3, but label_column is null"):
        HuggingFaceImages("someone/something", 8, classes=3)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_DATA", str(tmp_path / "kept"))
    return tmp_path / "kept" / "digests"


PIXELS = {
    "train": np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8),
    "held": np.random.default_rng(1).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8),
}


def tables():
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    features = datasets.Features(
        {
            "picture": datasets.Image(),
            "kind": datasets.ClassLabel(names=["cat", "dog", "owl"]),
            "number": datasets.Value("int64"),
            "sign": datasets.Value("int64"),
            "text": datasets.Value("string"),
        }
    )
    return datasets.DatasetDict(
        {
            split: datasets.Dataset.from_dict(
                {
                    "picture": [Image.fromarray(p) for p in pixels],
                    "kind": [i % 3 for i in range(len(pixels))],
                    "number": [i % 4 for i in range(len(pixels))],
                    "sign": [i % 2 * 2 - 1 for i in range(len(pixels))],
                    "text": [f"{split} {i}" for i in range(len(pixels))],
                },
                features=features,
            )
            for split, pixels in PIXELS.items()
        }
    )


@pytest.fixture
def saved(tmp_path):
    tables().save_to_disk(str(tmp_path / "saved"))
    return str(tmp_path / "saved")


@pytest.mark.parametrize("form", ["saved", "parquet"])
def test_local_folders_are_read_offline(tmp_path, monkeypatch, form):
    both = tables()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / form
    if form == "saved":
        both.save_to_disk(str(folder))
    else:  # files have their splits' names, and those of the hub only
        folder.mkdir()
        both["train"].to_parquet(str(folder / "train.parquet"))
        both["held"].to_parquet(str(folder / "validation.parquet"))
    read = HuggingFaceImages(
        str(folder),
        8,
        validation_split="held" if form == "saved" else "validation",
        label_column="kind",
        caption_column="text",
        classes=3,
    )
    read.prepare()
    assert read.class_names() == ("cat", "dog", "owl")
    for split, name in (("train", "train"), ("validation", "held")):
        images = read.images(split)
        pixels = images.read(torch.arange(len(images)))
        assert np.array_equal(pixels, PIXELS[name].transpose(0, 3, 1, 2))
        assert images.labels.tolist() == [i % 3 for i in range(len(images))]
        assert list(images.captions) == [f"{name} {i}" for i in range(len(images))]


def test_number_labels_are_named_by_their_numbers(saved):
    read = HuggingFaceImages(saved, 8, validation_split="held", label_column="number", classes=4)
    read.prepare()
    assert read.class_names() == ("0", "1", "2", "3")


def test_without_labels_and_captions(saved):
    read = HuggingFaceImages(saved, 4, validation_split="held", channels=1)
    images = read.images("train")
    assert read.class_names() == ()
    assert images.captions is None
    assert not images.labels.any()
    assert images.read(torch.tensor([1, 0])).shape == (2, 1, 4, 4)


def test_pictures_of_another_shape_are_fitted(saved):
    def read(fit):
        source = HuggingFaceImages(saved, (8, 16), validation_split="held", fit=fit)
        return source.images("train")

    padded = read("pad").read(torch.arange(9))
    assert np.array_equal(padded[..., 4:12], PIXELS["train"].transpose(0, 3, 1, 2))
    assert not padded[..., :4].any()
    assert not padded[..., 12:].any()
    assert read("crop").read(torch.arange(2)).shape == (2, 3, 8, 16)
    assert len({read(fit).fingerprint for fit in ("crop", "pad", "stretch")}) == 3


def test_rows_are_read_in_worker_processes(saved):
    images = HuggingFaceImages(saved, 8, validation_split="held").images("train")
    batches = list(split_loader(images, batch_size=4, workers=2))
    pixels = torch.cat([batch["image"] for batch in batches])
    assert np.array_equal(pixels, PIXELS["train"].transpose(0, 3, 1, 2))


def test_fingerprint_follows_pixels_labels_and_captions(saved, tmp_path):
    def fingerprint(**settings) -> str:
        read = HuggingFaceImages(saved, 8, validation_split="held", **settings)
        return read.images("train").fingerprint

    first = fingerprint()
    assert fingerprint() == first
    others = {
        first,
        fingerprint(label_column="kind"),
        fingerprint(label_column="number"),
        fingerprint(caption_column="text"),
        fingerprint(channels=1),
        HuggingFaceImages(saved, 8, "held", "train").images("train").fingerprint,
    }
    assert len(others) == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation_split": "validation"}, r"no split 'validation', only \['held', 'train'\]"),
        ({"label_column": "label"}, "no column 'label', only"),
        ({"label_column": "sign"}, "'sign': no label from 0 to 1 in 5 of 9 rows: 0, 2, 4, 6, 8"),
        ({"caption_column": "kind"}, "'kind': must hold texts, one a picture, not int64"),
        ({"image_column": "kind"}, r"'kind' holds no images; \['picture'\] do"),
        ({"label_column": "kind", "classes": 2}, "classes is 2, but .* has 3"),
    ],
)
def test_settings_that_do_not_fit_the_tables(saved, settings, message):
    with pytest.raises(ValueError, match=message):
        HuggingFaceImages(saved, 8, **({"validation_split": "held"} | settings)).images("train")


def test_one_saved_table_has_no_splits(tmp_path):
    tables()["train"].save_to_disk(str(tmp_path / "one"))
    with pytest.raises(ValueError, match="save a DatasetDict"):
        HuggingFaceImages(str(tmp_path / "one"), 8).prepare()


def test_an_empty_folder_says_so(tmp_path):
    pytest.importorskip("datasets")
    with pytest.raises(FileNotFoundError, match="neither a folder nor a data set"):
        HuggingFaceImages(str(tmp_path), 8).prepare()


def test_an_unreadable_image_is_named(tmp_path):
    datasets = pytest.importorskip("datasets")
    saved = tables()
    rows = saved["train"].cast_column("picture", datasets.Image(decode=False)).to_list()
    rows[2]["picture"] = {"bytes": rows[2]["picture"]["bytes"][:50], "path": None}
    broken = datasets.Dataset.from_list(rows, features=saved["train"].features)
    datasets.DatasetDict(train=broken, held=saved["held"]).save_to_disk(str(tmp_path / "saved"))
    images = HuggingFaceImages(str(tmp_path / "saved"), 8, validation_split="held").images("train")
    assert images.read(torch.tensor([1, 3])).shape == (2, 3, 8, 8)
    with pytest.raises(ValueError, match="image 2 of column 'picture' is unreadable"):
        images.read(torch.tensor([1, 2]))


def encoded(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def written(folder, kinds=None, held=None, **columns):
    """A folder of two tables of one length; ``held`` are columns of the validation split."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    made = {}
    for split, given in (("train", columns), ("validation", columns | (held or {}))):
        n = len(next(iter(given.values())))
        pictures = [{"bytes": encoded(k), "path": None} for k in range(n)]
        rows = {"image": pictures} | given
        features = {name: datasets.Value("string") for name in rows} | {"image": datasets.Image()}
        features |= kinds or {}
        features = {name: features[name] for name in rows}
        made[split] = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    datasets.DatasetDict(made).save_to_disk(str(folder))
    return str(folder)


def value(kind):
    return pytest.importorskip("datasets").Value(kind)


def test_all_wrong_rows_of_all_columns_are_told_at_once(tmp_path):
    pictures = [{"bytes": encoded(k), "path": None} for k in range(30)]
    pictures[4], pictures[5] = None, {"bytes": b"", "path": None}
    texts = [f"text {k}" for k in range(30)]
    texts[1:4] = ["", None, " \t\u3000"]
    labels = [k % 3 for k in range(30)]
    labels[7:25] = [None, -1, *[-2] * 16]
    folder = written(tmp_path / "t", {"n": value("int64")}, image=pictures, text=texts, n=labels)
    read = HuggingFaceImages(folder, 8, label_column="n", caption_column="text")
    with pytest.raises(ValueError, match="no picture") as error:
        read.prepare()
    told = str(error.value)
    assert "split 'train', 'image': no picture in 2 of 30 rows: 4, 5\n" in told
    assert "split 'train', 'text': no caption (data.uncaptioned=true" in told
    assert "in 3 of 30 rows: 1, 2, 3\n" in told
    numbers = ", ".join(map(str, range(7, 17)))
    assert f"'n': no label from 0 to 2 in 18 of 30 rows: {numbers}, …" in told
    assert "split 'validation', 'image': no picture in 2 of 30" in told


@pytest.mark.parametrize(
    ("kind", "values", "settings", "told"),
    [
        ("float64", [0.0, 1.0], {"label_column": "c"}, "whole numbers from 0 or texts, not double"),
        ("int64", [5, 6], {"caption_column": "c"}, "'c': must hold texts, one a picture, not int6"),
        ("list", [["a"], ["b"]], {"caption_column": "c"}, "keep one for each picture"),
        ("string", ["a.png", "b.png"], {"image_column": "c"}, r"cast_column\('c', datasets.Image"),
        ("string", ["a", " "], {"label_column": "c"}, "'c': no label in 1 of 2 rows: 1"),
    ],
)
def test_columns_of_another_type_are_told(kind, values, settings, told, tmp_path):
    datasets = pytest.importorskip("datasets")
    of = datasets.List(value("string")) if kind == "list" else value(kind)
    folder = written(tmp_path / "t", {"c": of}, c=values)
    with pytest.raises(ValueError, match=told):
        HuggingFaceImages(folder, 8, **settings).prepare()


def test_uncaptioned_pictures_may_be_asked_for(tmp_path):
    folder = written(tmp_path / "t", text=["a", None, " ", ""])
    read = HuggingFaceImages(folder, 8, caption_column="text", uncaptioned=True)
    assert list(read.images("train").captions) == ["a", "", "", ""]


def test_text_labels_are_classes_in_natural_order_of_both_splits(tmp_path, capsys):
    folder = written(tmp_path / "t", c=["b10", "b2", "a"], held={"c": ["b2", "b3"]})
    read = HuggingFaceImages(folder, 8, label_column="c", classes=4)
    read.prepare()
    assert read.class_names() == ("a", "b2", "b3", "b10")
    assert read.images("train").labels.tolist() == [3, 1, 0]
    assert read.images("validation").labels.tolist() == [1, 2]
    said = capsys.readouterr().err
    assert "of 1 classes only validation has pictures: b3" in said


def test_quarantine_puts_the_next_row_in_the_place_of_one_that_cannot_be_read(tmp_path):
    pictures = [{"bytes": encoded(k), "path": None} for k in range(5)]
    pictures[1], pictures[4] = {"bytes": encoded(1)[:40], "path": None}, None
    folder = written(
        tmp_path / "t", {"n": value("int64")}, image=pictures, n=[0, 1, 2, 3, 4], text=list("abcde")
    )

    def images(most):
        settings = {"label_column": "n", "caption_column": "text", "quarantine": most}
        return HuggingFaceImages(folder, 8, **settings).images("train")

    read = images(2)
    assert read.labels.tolist() == [0, 2, 2, 3, 0]
    assert list(read.captions) == list("accda")
    assert read.read(torch.arange(5))[:, 0, 0, 0].tolist() == [0, 2, 2, 3, 0]
    assert [line.split(" ")[1] for line in read.quarantined] == ["1", "4"]
    assert "row 2 replaces it" in read.quarantined[0]
    with pytest.raises(ValueError, match=r"2 images are unreadable, data.quarantine is 1: image 1"):
        images(1)
    with pytest.raises(ValueError, match="no picture in 1 of 5 rows: 4"):
        images(0)


def test_the_fingerprint_is_that_of_every_earlier_version(saved):
    images = HuggingFaceImages(
        saved, 8, validation_split="held", label_column="number", caption_column="text"
    ).images("train")
    digest = hashlib.sha256(repr(((3, 8, 8), "crop")).encode())
    for index, row in enumerate(images.column.to_pylist()):
        digest.update(hashlib.sha256(row["bytes"]).digest() + (index % 4).to_bytes(8))
    for text in images.captions:
        digest.update(text.encode() + b"\0")
    assert images.fingerprint == digest.hexdigest()


def test_pictures_are_digested_once_for_files_that_stay_the_same(saved, cache, monkeypatch):
    def fingerprint(**settings) -> str:
        read = HuggingFaceImages(saved, 8, validation_split="held", **settings)
        return read.images("train").fingerprint

    first = fingerprint()
    (kept,) = cache.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr("unnoise.data.digests._computed", lambda column: pytest.fail("read anew"))
        assert fingerprint() == first
        assert fingerprint(fit="pad", label_column="kind") != first
    damaged = bytearray(kept.read_bytes())
    damaged[-1] ^= 1
    for content in (bytes(damaged), kept.read_bytes()[:-5], b""):
        kept.write_bytes(content)
        assert fingerprint() == first
    for file in os.listdir(saved + "/train"):
        os.utime(f"{saved}/train/{file}", ns=(1, 1))
    assert fingerprint() == first
    assert len(list(cache.iterdir())) == 2


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of the pictures of both splits, in two classes."""
    pytest.importorskip("datasets").disable_progress_bars()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for split, pixels in (("train", PIXELS["train"]), ("validation", PIXELS["held"])):
        for index, each in enumerate(pixels):
            folder = tmp_path / "photos" / split / f"kind{index % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(each).save(folder / f"{index:02}.png")
    return str(tmp_path / "photos")


def test_the_files_of_a_folder_are_looked_for_once_for_both_splits(photos, monkeypatch):
    import datasets

    loaded, load = [], datasets.load_dataset  # which walks the folder some fifty times
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: loaded.append(a) or load(*a, **k))
    source = HuggingFaceImages(photos, 8)
    assert [len(source.images(split)) for split in ("train", "validation")] == [9, 4]
    assert loaded == [(photos,)]


def test_a_folder_packed_by_datasets_has_the_pictures_of_the_folder(photos, tmp_path):
    import datasets

    datasets.load_dataset("imagefolder", data_dir=photos).save_to_disk(str(tmp_path / "packed"))
    packed = HuggingFaceImages(str(tmp_path / "packed"), 8, label_column="label", classes=2)
    folder = ImageFolder(photos, 8, classes=2)
    assert packed.class_names() == folder.class_names()
    splits = "train", "validation"
    files = [folder.images(split) for split in splits]
    pixels = [images.read(torch.arange(len(images))) for images in files]
    shutil.rmtree(photos)
    for split, images, expected in zip(splits, files, pixels, strict=True):
        read = packed.images(split)
        assert torch.equal(read.labels, images.labels)
        assert torch.equal(read.read(torch.arange(len(read))), expected)


def test_contents_tell_rows_apart(saved):
    settings = {"validation_split": "held", "label_column": "kind", "caption_column": "text"}
    told = list(HuggingFaceImages(saved, 8, **settings).images("train").contents())
    assert [name for name, _ in told] == [f"row {k}" for k in range(9)]
    assert len({digest for _, digest in told}) == 9
    plain = list(HuggingFaceImages(saved, 8, validation_split="held").images("train").contents())
    assert not {digest for _, digest in told} & {digest for _, digest in plain}


def test_deep_and_large_pictures_are_read_as_the_keys_say(tmp_path):
    datasets = pytest.importorskip("datasets")
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(file, "PNG")
    table = datasets.Dataset.from_dict(
        {"image": [{"bytes": file.getvalue(), "path": None}]},
        features=datasets.Features({"image": datasets.Image()}),
    )
    datasets.DatasetDict(train=table, validation=table).save_to_disk(str(tmp_path / "t"))
    for keys, level in (({}, 15), ({"range": (0, 4095)}, 255)):
        images = HuggingFaceImages(str(tmp_path / "t"), 8, **keys).images("train")
        assert (images.read(torch.tensor([0])) == level).all()
    images = HuggingFaceImages(str(tmp_path / "t"), 8, most_pixels=63).images("train")
    with pytest.raises(ValueError, match=r"64 pixels, more than data.most_pixels"):
        images.read(torch.tensor([0]))
