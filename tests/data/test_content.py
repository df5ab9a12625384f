"""What data hold is compared by content: what differs is said, picture by picture."""

import gzip
import json

import pytest
import torch

from unnoise.data import content
from unnoise.data.content import difference, facts, keep, mapping
from unnoise.data.memory import TensorImages

N = 300  # more than one batch


def split(pixel=0, label=0, caption="a"):
    """Pictures of which number 270 is as said."""
    pixels = torch.arange(N).view(N, 1, 1, 1).expand(N, 1, 4, 4).to(torch.uint8).clone()
    labels, captions = torch.zeros(N, dtype=torch.int64), ["a"] * N
    pixels[270, 0, 3, 3], labels[270], captions[270] = pixel, label, caption
    return TensorImages(pixels, labels, captions)


@pytest.mark.parametrize("other", [{"pixel": 1}, {"label": 1}, {"caption": "b"}])
def test_only_the_changed_picture_has_another_digest(other):
    before, after = list(split().contents()), list(split(**other).contents())
    assert [name for name, _ in before] == [f"image {k}" for k in range(N)]
    assert [one[0] for one, two in zip(before, after, strict=True) if one != two] == ["image 270"]


def test_digests_are_of_the_content_alone():
    assert list(split().contents()) == list(split().contents())


class Files(TensorImages):
    """Pictures of one grey each, that have names; by twos of a class."""

    def __init__(self, **greys):
        self.names = list(greys)
        pixels = torch.tensor([*greys.values()], dtype=torch.uint8)
        super().__init__(
            pixels.view(-1, 1, 1, 1).expand(-1, 1, 4, 4), torch.arange(len(greys)) // 2
        )

    def contents(self):
        for name, (_, digest) in zip(self.names, super().contents(), strict=True):
            yield name, digest


BEFORE = Files(a=1, b=2, c=3, d=4, e=5)
NAMES = ("cat", "dog", "owl")


def told(path, train=BEFORE, validation=BEFORE, names=NAMES, then=None):
    """What is said of splits after BEFORE was kept as both."""
    splits = {"train": BEFORE, "validation": BEFORE}
    keep(path, splits)
    before = facts(NAMES, splits) if then is None else then
    return difference(before, path, names, {"train": train, "validation": validation})


def test_the_same_content_is_no_difference(tmp_path):
    assert told(tmp_path / "kept") is None
    assert told(tmp_path / "kept", Files(a=1, b=2, c=3, d=4, e=5)) is None


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (Files(a=1, b=2, c=3, d=4, e=9), "(1 changed: e)"),
        (Files(a=1, b=2, c=3, d=4), "(1 gone: e)"),
        (Files(a=1, b=2, c=3, d=4, e=5, f=6), "(1 new: f)"),
        (Files(a=1, b=2, c=3, d=4, f=5), None),  # one that is called something else
        (Files(v=6, w=7, x=8, y=9), "(4 new: v, w, x, …; 5 gone: a, b, c, …)"),
        (Files(a=2, b=1, c=3, d=4, e=5), "(the same, under other labels or in another order)"),
    ],
)
@pytest.mark.parametrize("which", ["train", "validation"])
def test_the_pictures_that_differ_are_named(now, said, which, tmp_path):
    found = told(tmp_path / "kept", **{which: now})
    if said is None:
        assert found is None
    else:
        assert found == f"{which} had 5 pictures, now {len(now)} {said}"


def test_one_inserted_among_numbered_pictures_is_one_that_is_new(tmp_path):
    before = TensorImages(
        torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1), torch.zeros(5).long()
    )
    grey = torch.tensor([0, 1, 9, 2, 3, 4], dtype=torch.uint8).view(6, 1, 1, 1)
    keep(tmp_path / "kept", {"train": before})
    now = TensorImages(grey, torch.zeros(6).long())
    found = difference(facts((), {"train": before}), tmp_path / "kept", (), {"train": now})
    assert found == "train had 5 pictures, now 6 (1 new: image 2)"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("bird", *NAMES), "label 0 meant cat, and would mean bird"),
        ((*NAMES, "zebra"), "label 3 meant nothing, and would mean zebra"),
        (NAMES[:2], "label 2 meant owl, and would mean nothing"),
        (("cat", "owl", "dog"), "label 1 meant dog, and would mean owl"),
    ],
)
def test_the_first_label_with_another_meaning_is_told(names, said, tmp_path):
    assert told(tmp_path / "kept", names=names) == said


def test_of_many_pictures_the_classes_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(content, "MOST", 4)
    found = told(tmp_path / "kept", Files(a=1, b=2, c=3, d=4, e=5, f=6))
    assert found == "train had 5 pictures, now 6 (owl 1 → 2)"


def packed(**train):
    return gzip.compress(
        json.dumps({"train": {"fingerprint": BEFORE.fingerprint, **train}}).encode(), mtime=0
    )


@pytest.mark.parametrize(
    "text",
    [
        *(None, b"", b"\x1f\x8b damaged", b"[]", gzip.compress(b"[]", mtime=0), packed()),
        *(packed(counts=3, pictures={}), packed(counts=[], pictures=["a"])),
    ],
)
def test_without_what_was_kept_the_numbers_are_told(text, tmp_path):
    splits = {"train": BEFORE, "validation": BEFORE}
    if text is not None:
        (tmp_path / "kept").write_bytes(text)
    now = {"train": Files(a=1, b=2), "validation": BEFORE}
    found = difference(facts(NAMES, splits), tmp_path / "kept", NAMES, now)
    assert found == "train had 5 pictures, now 2"


def test_what_was_kept_of_other_data_names_nothing(tmp_path):
    keep(tmp_path / "kept", {"train": Files(a=7, b=8)})
    then, now = facts(NAMES, {"train": BEFORE}), {"train": Files(a=7, b=9)}
    assert difference(then, tmp_path / "kept", NAMES, now) == "train had 5 pictures, now 2"


@pytest.mark.parametrize("key", ["fingerprint", "validation_fingerprint", "classes"])
def test_what_an_older_run_does_not_say_is_not_compared(key, tmp_path):
    then = facts(NAMES, {"train": BEFORE, "validation": BEFORE})
    other = {"fingerprint": {"train": Files(a=1)}, "classes": {"names": ("x",)}}
    changed = other.get(key, {"validation": Files(a=1)})
    assert told(tmp_path / "kept", **changed) is not None
    del then[key]
    assert told(tmp_path / "kept", then=then, **changed) is None
    assert told(tmp_path / "kept", then={}, **changed) is None


def test_what_is_kept_is_written_once(tmp_path):
    told(tmp_path / "kept")
    before = (tmp_path / "kept").stat().st_mtime_ns
    told(tmp_path / "kept")
    assert (tmp_path / "kept").stat().st_mtime_ns == before
    keep(tmp_path / "kept", {"train": BEFORE, "validation": Files(a=1)})
    assert (tmp_path / "kept").stat().st_mtime_ns != before


def test_labels_are_told_in_a_line():
    assert mapping(NAMES) == "classes: 0=cat, 1=dog, 2=owl"
    assert mapping(()) == mapping([str(label) for label in range(10)]) == ""
    line = mapping([f"kind of bird {k}" for k in range(400)])
    assert len(line) <= 100
    assert line.startswith("classes: 0=kind of bird 0, 1=kind of bird 1, ")
    assert line.endswith("… 399=kind of bird 399")


def test_a_class_name_that_is_no_utf_8_can_be_printed():
    assert mapping(["dogs", "caf\udce9"]).encode() == rb"classes: 0=dogs, 1=caf\udce9"
