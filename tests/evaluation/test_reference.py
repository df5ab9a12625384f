import json
import multiprocessing
from pathlib import Path

import pytest
import torch

from unnoise.evaluation.extractors.base import Features
from unnoise.evaluation.reference import Reference, cache_folder, cached

ABOUT = {"extractor": "toy", "extractor_digest": "ab", "data": "cd", "split": "train", "count": 8}


def features(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Features(*(torch.randn(8, d, generator=generator) for d in (3, 4, 2)))


class Compute:
    """Features, and how often they were asked for."""

    def __init__(self, seed=0):
        self.times, self.seed = 0, seed

    def __call__(self):
        self.times += 1
        return features(self.seed)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def kept(folder):
    (file,) = folder.iterdir()
    return file


def test_computed_once(tmp_path):
    compute = Compute()
    first, second = cached(ABOUT, compute, tmp_path), cached(ABOUT, compute, tmp_path)
    assert compute.times == 1
    assert first.about == second.about == ABOUT
    assert same(first.features, features())
    assert same(second.features, features())


def test_the_order_of_what_it_is_about_does_not_matter(tmp_path):
    cached(ABOUT, Compute(), tmp_path)
    again = Compute()
    cached(dict(reversed(ABOUT.items())), again, tmp_path)
    assert again.times == 0


@pytest.mark.parametrize("key", ABOUT)
def test_each_thing_it_is_about_makes_another(key, tmp_path):
    cached(ABOUT, Compute(), tmp_path)
    other = Compute(1)
    found = cached({**ABOUT, key: "other"}, other, tmp_path)
    assert other.times == 1
    assert same(found.features, features(1))
    assert same(cached(ABOUT, Compute(2), tmp_path).features, features())


def test_a_file_of_something_else_under_its_name(tmp_path):
    cached({**ABOUT, "split": "validation"}, Compute(1), tmp_path / "one")
    cached(ABOUT, Compute(), tmp_path / "two")
    kept(tmp_path / "one").replace(kept(tmp_path / "two"))
    assert same(cached(ABOUT, Compute(), tmp_path / "two").features, features())


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_file_cut_short_is_written_anew(share, tmp_path):
    cached(ABOUT, Compute(), tmp_path)
    whole = kept(tmp_path).read_bytes()
    kept(tmp_path).write_bytes(whole[: int(share * len(whole))])
    again = Compute()
    assert same(cached(ABOUT, again, tmp_path).features, features())
    cached(ABOUT, again, tmp_path)
    assert again.times == 1


def test_any_flipped_bit_is_noticed(tmp_path):
    cached(ABOUT, Compute(), tmp_path)
    whole = kept(tmp_path).read_bytes()
    for place in range(0, len(whole), 11):
        bits = bytearray(whole)
        bits[place] ^= 1 << place % 8
        kept(tmp_path).write_bytes(bits)
        again = Compute()
        found = cached(ABOUT, again, tmp_path)
        assert again.times == 1, place
        assert same(found.features, features())


def test_a_failed_computation_leaves_nothing(tmp_path):
    def fail():
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError):
        cached(ABOUT, fail, tmp_path)
    assert list(tmp_path.iterdir()) == []


def _rewrite(folder: Path, failures: multiprocessing.Queue) -> None:
    wrong = 0
    for _ in range(50):
        for file in folder.glob("toy_*"):
            file.unlink(missing_ok=True)
        wrong += not same(cached(ABOUT, features, folder).features, features())
    failures.put(wrong)


def test_two_processes_at_once_leave_a_whole_file(tmp_path):
    context = multiprocessing.get_context("fork")
    failures = context.Queue()
    both = [context.Process(target=_rewrite, args=(tmp_path, failures)) for _ in range(2)]
    for process in both:
        process.start()
    assert [failures.get(timeout=60), failures.get(timeout=60)] == [0, 0]
    for process in both:
        process.join()
    again = Compute()
    cached(ABOUT, again, tmp_path)
    assert again.times == 0
    assert kept(tmp_path).suffix == ".safetensors"


def test_where_it_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    cached(ABOUT, Compute())
    assert kept(tmp_path / "references").name.startswith("toy_")
    monkeypatch.setenv("UNNOISE_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "unnoise"


def test_the_file_says_what_it_is_of(tmp_path):
    cached(ABOUT, Compute(), tmp_path)
    raw = kept(tmp_path).read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert json.loads(header["__metadata__"]["about"]) == ABOUT


def test_its_moments():
    held = Reference(ABOUT, features())
    assert held.extractor == "toy"
    for part, found in ((0, held.pooled), (1, held.spatial)):
        x = features()[part].double()
        assert found.n == 8
        torch.testing.assert_close(found.mean, x.mean(0))
        torch.testing.assert_close(found.covariance, torch.cov(x.T))


def test_its_likeness_is_the_mean_kernel_of_pairs():
    x = features().pooled.double()
    k = (x @ x.T / 3 + 1) ** 3
    expected = (k.sum() - k.trace()) / (8 * 7)
    assert float(Reference(ABOUT, features()).likeness) == pytest.approx(float(expected), rel=1e-12)


def test_features_that_cannot_be_kept_are_computed_with_a_warning(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    made = Features(*(torch.ones(3, 2) for _ in Features._fields))
    about = {"extractor": "x"}
    found = cached(about, lambda: made, tmp_path / "file" / "below")
    assert all(torch.equal(one, other) for one, other in zip(found.features, made, strict=True))
    assert "warning: features are not kept" in capsys.readouterr().err
    cached(about, lambda: made, tmp_path / "there")
    again = cached(about, lambda: 1 / 0, tmp_path / "there")
    assert torch.equal(again.features[0], made[0])
