from functools import partial
from types import SimpleNamespace

import pytest
import torch

from unnoise.data.sprites import Sprites
from unnoise.evaluation import evaluator as evaluation
from unnoise.evaluation.evaluator import Evaluator, mixed
from unnoise.evaluation.gallery import SampleSet
from unnoise.evaluation.results import Samples


def test_features_are_kept_for_these_pictures_only(tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    source, given = Sprites(40, 20), Samples(kind="given")
    evaluator = Evaluator(
        source=source,
        device=torch.device("cpu"),
        batch_size=8,
        reference_count=30,
        metrics=["fd"],
    )
    images = source.images("train")
    few, others = images.images[:12], images.images[20:32]
    first = evaluator.score("few", given, few, tmp_path / "kept").metrics
    assert evaluator.score("others", given, others, tmp_path / "kept").metrics != first
    monkeypatch.setattr("unnoise.evaluation.evaluator.extract", None)
    assert evaluator.score("few", given, few, tmp_path / "kept").metrics == first


def test_features_do_not_hang_on_the_batch_size(tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    source, given, looked = Sprites(40, 20), Samples(kind="given"), []

    def extract(extractor, batches, device):
        looked.append([len(batch) for batch in batches])
        return evaluation_extract(extractor, batches, device)

    evaluation_extract = evaluation.extract
    monkeypatch.setattr(evaluation, "extract", extract)
    for batch_size in (5, 12):
        evaluator = Evaluator(
            source=source,
            device=torch.device("cpu"),
            batch_size=batch_size,
            reference_count=30,
            metrics=["fd"],
        )
        evaluator.score("some", given, source.images("train").images[:20], tmp_path / "kept")
    assert looked == [[20]]


def test_an_evaluation_that_was_killed_goes_on_from_what_was_drawn_and_from_what_was_seen(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    source = Sprites(40, 20)
    evaluator = Evaluator(
        source=source, device=torch.device("cpu"), batch_size=4, reference_count=20, metrics=["fd"]
    )
    (checkpoint := tmp_path / "model.ckpt").write_bytes(b"weights")
    samples = SampleSet(
        checkpoint=checkpoint, recipe={"_target_": "unnoise.diffusion.samplers.Euler"}
    )
    looked: list[int] = []
    extract = evaluation.extract

    def counted(extractor, batches, device):
        looked.append(sum(map(len, batches)))
        return extract(extractor, batches, device)

    monkeypatch.setattr(evaluation, "extract", counted)
    monkeypatch.setattr(evaluation, "BLOCK", 4)
    pictures = source.images("train").images[:12]

    def model(until):
        def draw(n, first, **_):
            if first >= until:
                raise KeyboardInterrupt
            return SimpleNamespace(pixels=pictures[first : first + n])

        network = torch.nn.Identity()
        return SimpleNamespace(
            model=SimpleNamespace(network=network, device=torch.device("cpu")), draw=draw
        )

    def drawn(until):
        load = partial(model, until)
        return evaluator.draw(tmp_path, samples, 12, load, "", with_features=True)

    with pytest.raises(KeyboardInterrupt):
        drawn(until=8)
    gallery = drawn(until=12)
    assert looked == [4, 4, 4]
    assert (gallery.folder, looked) == (drawn(until=0).folder, [4, 4, 4])
    kept = evaluator.score("kept", Samples(kind="given"), gallery.read(12), gallery.folder)
    assert looked == [4, 4, 4]
    anew = evaluator.score("kept", Samples(kind="given"), gallery.read(12))
    assert (looked, kept.metrics) == ([4] * 6, anew.metrics)


def test_errors_do_not_hang_on_how_given_pictures_are_sorted():
    sorted_ = torch.arange(1000)
    blocks = mixed(sorted_).tensor_split(10)
    assert sorted(torch.cat(blocks).tolist()) == sorted_.tolist()
    shares = torch.stack([(block < 500).double().mean() for block in blocks])
    assert (shares - 0.5).abs().max() < 4 * 0.05
