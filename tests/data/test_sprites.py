import time
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from unnoise.data.sprites import source as sprites
from unnoise.data.sprites.drawings import (
    CLASSES,
    COLOURS,
    DRAWINGS,
    ITEMS,
    KINDS,
    PALETTE,
    TINTS,
    Kind,
    blocks,
)
from unnoise.data.sprites.source import Sprites


@pytest.fixture(scope="module")
def train() -> sprites.SpriteImages:
    return Sprites().images("train")


@pytest.fixture(scope="module")
def validation() -> sprites.SpriteImages:
    return Sprites().images("validation")


@pytest.fixture(scope="module")
def held_out() -> sprites.SpriteImages:
    return Sprites().held_out(3_000)


def rows(images: sprites.SpriteImages) -> Tensor:
    return images.read(torch.arange(len(images))).flatten(1)


def luminance(rgb: np.ndarray) -> np.ndarray:
    weighted: np.ndarray = rgb @ np.array([0.2126, 0.7152, 0.0722])
    return weighted


def test_shapes_and_types(train: sprites.SpriteImages, validation: sprites.SpriteImages) -> None:
    source = Sprites()
    batch = train.read(torch.tensor([3, 19_999]))
    assert batch.dtype == torch.uint8
    assert batch.shape == (2, *source.shape)
    assert (source.check(), len(train), len(validation)) == (20_000, 20_000, 2_000)
    assert source.class_names() == ("hero", "non-hero", "food", "spell", "side-facing")


def test_a_sprite_depends_on_seed_and_index_alone(train: sprites.SpriteImages) -> None:
    for split in ("train", "validation"):
        small = Sprites(size=47, validation_size=31).images(split)
        large = Sprites(size=901, validation_size=211).images(split)
        assert torch.equal(rows(small), rows(large)[: len(small)])
        assert list(small.attributes) == list(large.attributes[: len(small)])
    again = Sprites().images("train")
    assert torch.equal(rows(again), rows(train))
    assert again.fingerprint == train.fingerprint
    assert Sprites(seed=1).images("train").fingerprint != train.fingerprint


def test_no_sprite_comes_twice(
    train: sprites.SpriteImages,
    validation: sprites.SpriteImages,
    held_out: sprites.SpriteImages,
) -> None:
    everything = torch.cat([rows(train), rows(validation), rows(held_out)]).numpy()
    assert len({row.tobytes() for row in everything}) == 25_000


def test_held_out_pairings_occur_nowhere_else(
    train: sprites.SpriteImages,
    validation: sprites.SpriteImages,
    held_out: sprites.SpriteImages,
) -> None:
    def pairings(images: sprites.SpriteImages) -> set[tuple[str, str, str, str | None]]:
        return {(a.class_name, a.kind, a.colour, a.item) for a in images.attributes}

    possible = {(k.class_name, k.name, *pair) for k in KINDS for pair in k.shown + k.held_out}
    kept, unseen = pairings(train), pairings(held_out)
    assert not (kept | pairings(validation)) & unseen
    assert kept | unseen == possible
    assert 0.08 < len(unseen) / len(possible) < 0.2
    assert {colour for _, _, colour, _ in kept} == set(COLOURS)
    assert {kind for _, kind, _, _ in unseen} == {kind.name for kind in KINDS}
    # a name holds out the same thing in every class, so one class does not give another away
    assert not {key[1:] for key in kept} & {key[1:] for key in unseen}


def test_classes_and_kinds_have_equal_shares(
    train: sprites.SpriteImages, validation: sprites.SpriteImages
) -> None:
    for images in (train, validation):
        assert images.labels.bincount().tolist() == [len(images) // 5] * 5
        names = [CLASSES[label] for label in images.labels.tolist()]
        assert names == [a.class_name for a in images.attributes]
        kinds = [(a.class_name, a.kind) for a in images.attributes]
        counts = [kinds.count((kind.class_name, kind.name)) for kind in KINDS]
        assert max(counts) - min(counts) <= 1
    shares = np.array([sum(a.colour == c for a in train.attributes) for c in COLOURS]) / len(train)
    np.testing.assert_allclose(shares, 1 / 8, atol=0.02)


def test_captions_say_the_attributes(
    train: sprites.SpriteImages, held_out: sprites.SpriteImages
) -> None:
    for images in (train, held_out):
        assert images.captions is not None
        for caption, a in zip(images.captions, images.attributes, strict=True):
            subject, *rest = caption.removesuffix(f" facing {a.facing}").split(" with ")
            assert subject in (f"a {a.colour} {a.kind}", f"an {a.colour} {a.kind}")
            assert rest == ([f"a {a.material} {a.item}"] if a.item else [])
            assert (" facing " in caption) == (a.class_name == "side-facing")
            assert caption.startswith("an ") == (a.colour == "orange")


def test_a_sprite_shows_its_caption_colour(
    train: sprites.SpriteImages, held_out: sprites.SpriteImages
) -> None:
    tones, owners = [], []
    for group, ramp in PALETTE.items():
        for name, rgb in ramp.tones.items():
            first = 1 if group == "colour" else 0  # outlines are too dark to tell apart
            tones.append(rgb[first:])
            owners += [COLOURS.index(name) if group == "colour" else -1] * len(rgb[first:])
    targets = torch.from_numpy(np.concatenate(tones)).float()
    for images in (train, held_out):
        sample = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:1_000]
        pixels = images.read(sample).permute(0, 2, 3, 1).reshape(-1, 3).float()
        owner = torch.tensor(owners)[torch.cdist(pixels, targets).argmin(1)].view(len(sample), -1)
        measured = torch.stack([(owner == c).sum(1) for c in range(len(COLOURS))], 1).argmax(1)
        told = torch.tensor([COLOURS.index(images.attributes[i].colour) for i in sample.tolist()])
        assert (measured == told).float().mean() > 0.99


def test_who_faces_left_holds_the_sword_on_the_left(train: sprites.SpriteImages) -> None:
    columns = torch.arange(16.0)
    for image, a in zip(train.images, train.attributes, strict=True):
        if a.facing and a.item == "sword" and a.kind != "princess":  # her crown is metal too
            assert a.material is not None
            base = torch.from_numpy(PALETTE["material"].tones[a.material][2].copy())
            metal = (image == base[:, None, None]).all(0).float().sum(0)
            centre = (metal * columns).sum() / metal.sum()
            assert (centre > 8) if a.facing == "right" else (centre < 7)


def test_drawings_are_16_by_16_known_symbols() -> None:
    symbols = "".join(ramp.symbols for ramp in PALETTE.values())
    assert len(set(symbols)) == len(symbols)
    assert {len(DRAWINGS[c]) for c in CLASSES} == {6}
    for name in (*CLASSES, "item"):
        for title, lines in blocks(name):
            assert [len(line) for line in lines] == [16] * 16, title
            assert set("".join(lines)) <= set(symbols), title
            assert {line[0] for line in lines} == {"."}, f"{title}: no room to shift left"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.class_name}-{kind.name}")
def test_a_drawing_fills_the_frame_in_one_outlined_piece(kind: Kind) -> None:
    drawing = np.array(list(DRAWINGS[kind.class_name][kind.name])).reshape(16, 16)
    solid = np.pad(drawing != ".", 1)
    height, width = np.ptp(np.nonzero(solid), axis=1) + 1
    assert max(height, width) >= 11
    assert solid.sum() >= 64
    coloured = np.isin(drawing, list("0123")).sum()
    assert coloured >= 0.4 * (drawing != ".").sum()
    light = np.isin(np.pad(drawing, 1, constant_values="."), list("3"))
    exposed = light[1:-1, 1:-1] & ~(solid[:-2, 1:-1] & solid[2:, 1:-1])
    assert not exposed.any(), "a highlight touches the background: the outline has a gap"


def test_ramps_climb_in_luminance_and_shadows_shift_in_hue() -> None:
    for group, ramp in PALETTE.items():
        for name, tones in ramp.tones.items():
            assert len(tones) == len(ramp.symbols), (group, name)
            assert all(b > a + 8 for a, b in pairwise(luminance(tones))), (group, name)
    for name, (outline, shadow, base, _) in PALETTE["colour"].tones.items():
        assert luminance(outline) < 80, name
        mixes = [tone / tone.sum() for tone in (shadow, base)]
        assert np.abs(mixes[0] - mixes[1]).sum() > 0.015, name


def test_colour_words_are_far_apart() -> None:
    base = np.stack([tones[2] for tones in PALETTE["colour"].tones.values()]).astype(float)
    distance = np.linalg.norm(base[:, None] - base, axis=-1) + 1e9 * np.eye(len(base))
    assert distance.min() > 75


def test_tints_are_slight_and_distinct() -> None:
    assert np.abs(TINTS - 1).max() <= 0.1 + 1e-9
    assert len(np.unique(TINTS.round(6), axis=0)) == 25


def test_background_is_white(train: sprites.SpriteImages) -> None:
    corners = train.images[:, :, 0, [0, -1]]
    assert (corners == 255).all(1).float().mean() > 0.85
    assert 0.2 < (train.images == 255).all(1).float().mean() < 0.6


def test_drawing_22_000_takes_under_3_seconds() -> None:
    start = time.process_time()
    source = Sprites()
    source.images("train")
    source.images("validation")
    assert time.process_time() - start < 3


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"size 42000 \+ validation_size 2000 exceed the 42000"):
        Sprites(size=42_000)
    with pytest.raises(ValueError, match="size must be from 1 to 6000, not 6001"):
        Sprites().held_out(6_001)


def test_items_are_carried_by_heroes_only(train: sprites.SpriteImages) -> None:
    for a in train.attributes:
        carries = a.class_name in ("hero", "side-facing")
        assert (a.item in ITEMS) == (a.material is not None) == carries
