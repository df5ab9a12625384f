import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.data import hugging_face
from unnoise.data.hugging_face import HuggingFaceImages
from unnoise.data.stream import split_loader


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(hugging_face, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'unnoise\[huggingface\]'"):
        HuggingFaceImages(str(tmp_path), 8).prepare()


def test_classes_need_a_label_column():
    with pytest.raises(ValueError, match="classes is 3, but label_column is null"):
        HuggingFaceImages("someone/something", 8, classes=3)


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
        assert images.captions == [f"{name} {i}" for i in range(len(images))]


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
        ({"label_column": "text"}, "'text' must hold integers from 0"),
        ({"label_column": "sign"}, "'sign' must hold integers from 0"),
        ({"caption_column": "kind"}, "'kind' must hold one string an image"),
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
