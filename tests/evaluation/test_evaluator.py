import torch

from unnoise.data.sprites import Sprites
from unnoise.evaluation.evaluator import Evaluator, mixed
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


def test_errors_do_not_hang_on_how_given_pictures_are_sorted():
    sorted_ = torch.arange(1000)
    blocks = mixed(sorted_).tensor_split(10)
    assert sorted(torch.cat(blocks).tolist()) == sorted_.tolist()
    shares = torch.stack([(block < 500).double().mean() for block in blocks])
    assert (shares - 0.5).abs().max() < 4 * 0.05
