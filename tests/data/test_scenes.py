"""Scenes: what a caption says is there, nothing held out is shown, the same on any machine."""

import hashlib
import pickle
import re
from collections import Counter
from itertools import combinations, permutations, product

import numpy as np
import pytest
import torch

from unnoise.config.schema import problems
from unnoise.data.content import facts
from unnoise.data.scenes import layout, plans, source
from unnoise.data.scenes.backgrounds import ART, BACKGROUNDS, MOODS, PROPS, RAMPS, SHADE, SYMBOLS
from unnoise.data.scenes.drawing import SUBJECTS, TINTED, draw
from unnoise.data.scenes.draws import Draws, key_of
from unnoise.data.scenes.layout import Subject
from unnoise.data.scenes.plans import NAMES, NOVELTIES, Group, Novelty, Relation
from unnoise.data.scenes.source import DRAWN, Scene, SceneImages, Scenes
from unnoise.data.source import HoldsOut
from unnoise.data.sprites.drawings import COLOURS, FACINGS, ITEMS, PALETTE
from unnoise.data.stream import training_loader

WHERES = {background.where: background.name for background in BACKGROUNDS}
MATERIALS = tuple(PALETTE["material"].tones)
NUMBERS = {"a": 1, "an": 1, "two": 2, "three": 3, "four": 4}
PLURALS = {"princess": "princesses", "fish": "fish"}
PHRASES = {
    **dict.fromkeys(("left of", "to the left of"), ("left of", False)),
    **dict.fromkeys(("right of", "to the right of"), ("left of", True)),
    "in front of": ("in front of", False),
    "behind": ("in front of", True),
    "above": ("above", False),
    "below": ("above", True),
    "between": ("between", False),
}


def some(size: int = 400, side: int = 64) -> SceneImages:
    return Scenes(size, image_size=side).images("train")  # type: ignore[arg-type]


def plural(word: str) -> str:
    return PLURALS.get(word, f"{word}s")


def pixels(images: SceneImages) -> np.ndarray:
    return images.read(torch.arange(len(images))).numpy()


def parse_group(words: str) -> dict[str, object]:
    """What a noun phrase says of a group; its words must be all there is."""
    kinds = {form: kind for kind in NAMES for form in (kind, plural(kind))}
    items = {form: item for item in ITEMS for form in (item, plural(item))}
    found = re.fullmatch(
        rf"(?P<number>{'|'.join(NUMBERS)}) ((?P<size>small|large) )?"
        rf"(?P<colour>{'|'.join(COLOURS)}) "
        rf"(?P<kind>{'|'.join(kinds)})"
        rf"( with ((?P<article>an?) )?((?P<material>{'|'.join(MATERIALS)}) )?"
        rf"(?P<item>{'|'.join(items)}))?( facing (?P<facing>{'|'.join(FACINGS)}))?",
        words,
    )
    assert found, words
    said = found.groupdict()
    number = NUMBERS[found["number"]]
    noun, carried = found["kind"], found["item"]
    assert noun == (kinds[noun] if number == 1 else plural(kinds[noun])), words
    for article, word in re.findall(r"\b(an?) (\w)", words):
        assert (article == "an") == (word in "aeiou"), words
    if carried:
        assert carried == (items[carried] if number == 1 else plural(items[carried])), words
        assert bool(found["article"]) == (number == 1), words
    said |= {"number": number, "kind": kinds[noun], "item": carried and items[carried]}
    del said["article"]
    return said


def parse(caption: str) -> tuple[str, str | None, str | None, list[dict[str, object]]]:
    """Background, relation, place and groups, the first being in that relation to the others."""
    where = next(w for w in WHERES if caption.startswith(w) or caption.endswith(w))
    leads = caption.startswith(where)
    rest = caption.removeprefix(where) if leads else caption.removesuffix(where)
    verb = None
    if leads and rest.startswith(", "):
        rest = rest.removeprefix(", ")
    elif leads:
        verb, rest = rest.split(maxsplit=1)
    rest = rest.strip()
    for phrase in sorted(PHRASES, key=len, reverse=True):
        first, found, second = rest.partition(f" {phrase} ")
        if found:
            if first.endswith((" is", " are")):
                first, _, verb = first.rpartition(" ")
            relation, inverse = PHRASES[phrase]
            groups = [parse_group(words) for words in (first, *second.split(" and "))]
            assert verb is None or (verb == "is") == (groups[0]["number"] == 1), caption
            return WHERES[where], relation, None, groups[:: -1 if inverse else 1]
    place = next((p for p in source.PLACES if rest.endswith(p)), None)
    rest = rest.removesuffix(f" {place}")
    groups = [parse_group(words) for words in re.split(", | and ", rest)]
    assert verb is None or (verb == "is") == (groups[0]["number"] == 1), caption
    return WHERES[where], None, place, groups


def test_captions_parse_back_into_what_is_shown() -> None:
    images, relations = some(3_000), Counter[str | None]()
    for scene, caption in zip(images.attributes, images.captions, strict=True):
        background, relation, place, groups = parse(caption)
        assert background == scene.background
        assert relation in (None, scene.relation)
        relations[relation] += 1
        shown = list(scene.groups)
        if relation == "between" and (groups[1]["kind"], groups[1]["colour"]) != (
            shown[1].kind,
            shown[1].colour,
        ):
            shown[1:] = shown[:0:-1]
        for said, group in zip(groups, shown, strict=True):
            assert said["item"] == group.item, caption
            for key, value in said.items():
                assert value is None or value == getattr(group, key), caption
        if place is not None:
            assert place == source.PLACES[int(scene.subjects[0].centre * 3) // 64], caption
    assert min(relations[r] for r in (None, "left of", "in front of", "above", "between")) > 100


def test_nearer_subjects_are_no_smaller_except_below_others() -> None:
    for scene in some(2_000).attributes:
        if scene.relation != "above":
            for far, near in combinations(scene.subjects, 2):
                assert near.scale >= far.scale or near.base == far.base


def test_captions_name_all_and_vary() -> None:
    images = some(2_000)
    assert len({*images.captions}) > 1_900
    assert max(map(len, images.captions)) < 200
    for scene in images.attributes:
        assert len(scene.subjects) == sum(group.number for group in scene.groups) <= 4
        assert len({(group.kind, group.colour) for group in scene.groups}) == len(scene.groups)


def boxes(scene: Scene, group: int) -> list[Subject]:
    return [subject for subject in scene.subjects if subject.group == group]


def edges(subjects: list[Subject]) -> tuple[int, int]:
    return min(s.left for s in subjects), max(s.left + s.width for s in subjects)


@pytest.mark.parametrize("side", [64, 128])
def test_subjects_stand_as_their_relation_says(side: int) -> None:
    for scene in some(1_500, side).attributes:
        every = [boxes(scene, k) for k in range(len(scene.groups))]
        if scene.relation == "left of":
            assert max(s.centre for s in every[0]) < min(s.centre for s in every[1])
        elif scene.relation == "between":
            middle, left, right = (group[0].centre for group in every)
            assert left < middle < right
        elif scene.relation == "in front of":
            assert min(s.base for s in every[0]) > max(s.base for s in every[1])
            assert every[0][0].scale >= every[1][0].scale
            (left, right), behind = edges(every[0]), edges(every[1])
            assert left - 5 * side // 64 <= sum(behind) / 2 <= right + 5 * side // 64
        elif scene.relation == "above":
            assert max(s.top + s.height for s in every[0]) < min(s.top for s in every[1])


@pytest.mark.parametrize("side", [64, 128])
def test_nothing_is_out_of_the_frame_and_enough_of_each_subject_is_seen(side: int) -> None:
    images, overlaps = some(600, side), 0
    for index, scene in enumerate(images.attributes):
        canvas, colours = draw(
            *(index % 8, scene.horizon, scene.groups, scene.subjects, side),
            Draws(images.key, index, DRAWN),
        )
        assert canvas.max() < len(colours)
        assert [s.base for s in scene.subjects] == sorted(s.base for s in scene.subjects)
        for number, s in enumerate(scene.subjects):
            group = scene.groups[s.group]
            assert s.scale == side // 64 + (group.size == "large")
            assert 0 <= s.left <= side - s.width, scene
            assert 0 <= s.top <= s.base - s.height <= side - s.height, scene
            assert s.base > (scene.horizon + 2) * side // 64, "it stands in the air"
            first = SUBJECTS + number * len(SYMBOLS)
            seen = ((canvas >= first) & (canvas < first + len(SYMBOLS))).sum()
            whole = (layout.art_of(*group.look, s.scale) > 0).sum()
            assert seen * layout.VISIBLE >= whole, scene.caption
            overlaps += seen < whole
    assert overlaps > 40


def test_no_scene_shows_what_is_held_out() -> None:
    source_ = Scenes()
    held = {n: source_.held_out(300, (n,)) for n in NOVELTIES}
    shown = [*some(4_000).attributes, *source_.images("validation").attributes]
    assert not any(plans.held_out(plans.Plan(s.groups, s.relation)) for s in shown)
    by_chance = [r for s in shown for r in _ordered(s) if plans.relation_held_out(*r)]
    assert not by_chance
    for novelty, images in held.items():
        for scene in images.attributes:
            plan = plans.Plan(scene.groups, scene.relation)
            assert plans.held_out(plan) == {novelty}
            seen = {r for r in _ordered(scene) if plans.relation_held_out(*r)}
            assert seen <= {*plans.relations(plan)}
    # told without the rules: what each held-out scene has, and no other scene
    pairs = {(g.kind, g.colour, g.item) for s in shown for g in s.groups}
    assert all(
        any((g.kind, g.colour, g.item) not in pairs for g in scene.groups)
        for scene in held["pairing"].attributes
    )
    totals = {each for scene in shown for each in _totals(scene).items()}
    assert all(_totals(scene).items() - totals for scene in held["count"].attributes)
    ordered = {each for scene in shown for each in _ordered(scene)}
    assert all(_ordered(scene) - ordered for scene in held["relation"].attributes)


@pytest.mark.parametrize("novelties", [NOVELTIES, ("pairing", "count")])
def test_each_sort_of_novelty_is_shown_in_each_place(novelties: tuple[Novelty, ...]) -> None:
    scenes = Scenes().held_out(8 * len(novelties), novelties).attributes
    found = Counter(
        (scene.background, *plans.held_out(plans.Plan(scene.groups, scene.relation)))
        for scene in scenes
    )
    assert len(found) == 8 * len(novelties)
    assert set(found.values()) == {1}


def _totals(scene: Scene) -> dict[str, int]:
    counts = Counter[str]()
    for group in scene.groups:
        counts[group.kind] += group.number
    return dict(counts)


def _ordered(scene: Scene) -> set[tuple[str, Relation, str]]:
    """The relations of kinds that a picture shows, stated or not, read off its boxes."""
    every = [(g.kind, boxes(scene, k)) for k, g in enumerate(scene.groups)]
    found = set()
    for (kind, ones), (other, others) in permutations(every, 2):
        if max(s.centre for s in ones) < min(s.centre for s in others):
            found.add((kind, "left of", other))
        if scene.relation in ("in front of", "above") and ones[0].group == 0:
            found.add((kind, scene.relation, other))
        for s, t in product(ones, others):
            if s.left < t.left + t.width and t.left < s.left + s.width:
                over = s.top + s.height <= t.top
                if over and kind in plans.FLYING:
                    found.add((kind, "above", other))
                if s.overlap(t) and scene.subjects.index(s) > scene.subjects.index(t):
                    found.add((kind, "in front of", other))
    return found


def test_held_out_relations_are_shown_in_the_other_order() -> None:
    for relation in plans.HELD:
        held = {(a, b) for a in NAMES for b in NAMES if plans.relation_held_out(a, relation, b)}
        assert 0.08 < len(held) / len(NAMES) ** 2 < 0.15
        assert not any((b, a) in held for a, b in held)
    assert {plans.held_count(kind) for kind in NAMES} == {2, 3, 4}


def test_a_scene_depends_on_seed_split_and_index_alone() -> None:
    images, few = some(300), Scenes(size=7, validation_size=5)
    everything = pixels(images)
    assert np.array_equal(pixels(few.images("train")), everything[:7])
    assert [*few.images("train").captions] == images.captions[:7]
    order = torch.tensor([299, 3, 3, 0])
    assert np.array_equal(some(300).read(order).numpy(), everything[order.numpy()])
    assert images.captions[-1] == images.captions[299]
    with pytest.raises(IndexError):
        images.captions[300]
    validation, other = few.images("validation"), Scenes(size=7, seed=1).images("train")
    assert not {*map(bytes, everything)} & {
        *map(bytes, pixels(validation)),
        *map(bytes, pixels(other)),
    }
    prints = {each.fingerprint for each in (images, few.images("train"), validation, other)}
    assert len(prints) == 4
    assert few.images("train").fingerprint == Scenes(size=7).images("train").fingerprint


def test_scenes_are_the_same_on_any_machine() -> None:
    digests = {
        side: hashlib.sha256(pixels(some(64, side)).tobytes()).hexdigest()[:16]
        for side in (64, 128)
    }
    assert digests == {64: "aa19a9919e1902db", 128: "e88d9e074ee8b5dd"}


def test_scenes_are_distinct() -> None:
    assert len({*map(bytes, pixels(some(3_000)))}) == 3_000


@pytest.mark.slow
def test_100_000_scenes_are_distinct() -> None:
    images = Scenes().images("train")
    digests = {
        hashlib.sha256(picture).digest()
        for rows in torch.split(torch.arange(len(images)), 1_000)
        for picture in images.read(rows).numpy()
    }
    assert len(digests) == len(images) == 100_000


def test_classes_and_kinds_have_their_shares() -> None:
    images = some(4_000)
    names = Scenes().class_names()
    assert images.labels.bincount().tolist() == [500] * 8
    assert [names[label] for label in images.labels.tolist()] == [
        scene.background for scene in images.attributes
    ]
    kinds = Counter(group.kind for scene in images.attributes for group in scene.groups)
    assert set(kinds) == set(NAMES)
    assert min(kinds.values()) > 0.3 * max(kinds.values())
    colours = Counter(group.colour for scene in images.attributes for group in scene.groups)
    np.testing.assert_allclose([colours[c] / colours.total() for c in COLOURS], 1 / 8, atol=0.03)
    numbers = Counter(len(scene.subjects) for scene in images.attributes)
    assert min(numbers[n] for n in (1, 2, 3, 4)) > 300


def test_a_subject_shows_its_colour_in_the_light_of_its_place() -> None:
    """Its base tone is nearest to that of its own colour, in each place and tint."""
    for background in range(len(BACKGROUNDS)):
        base = np.stack([RAMPS[background]["colour"][name][2] for name in COLOURS]).astype(int)
        for number, name in enumerate(COLOURS):
            tones = TINTED[background][name][:, 2].astype(int)
            distance = np.linalg.norm(tones[:, None] - base, axis=-1)
            assert (distance.argmin(1) == number).all(), (BACKGROUNDS[background].name, name)


def test_art_is_of_known_tones() -> None:
    assert {len(moods) >= 3 for moods in MOODS.values()} == {True}
    assert set(MOODS) == {background.name for background in BACKGROUNDS}
    used = {name for b in BACKGROUNDS for props in b.props for name in props.names}
    assert used == set(ART)
    for background in BACKGROUNDS:
        for colours in MOODS[background.name]:
            assert colours[:13].any(1).all(), background.name
            assert (colours[SHADE : SHADE + 13] < colours[:13]).any(1).all()
        for group, names in background.ramps.items():
            assert set(names) <= set(PALETTE[group].tones), background.name
    assert PROPS + len(SYMBOLS) == SUBJECTS <= 256 - 4 * len(SYMBOLS)


def test_a_shadow_darkens_the_floor_below_a_subject() -> None:
    images = some(200)
    for index, scene in enumerate(images.attributes):
        if len(scene.subjects) > 1:
            continue
        canvas, _ = draw(
            *(index % 8, scene.horizon, scene.groups, scene.subjects, 64),
            Draws(images.key, index, DRAWN),
        )
        shaded = (canvas >= SHADE) & (canvas < SHADE + 13)
        rows, columns = shaded.nonzero()
        (subject,) = scene.subjects
        assert len(rows) > 0, scene.caption
        assert (abs(rows + 0.5 - subject.base) <= max(3, subject.width / 8 + 1)).all()
        assert (abs(columns + 0.5 - subject.centre) <= subject.width / 2 + 2).all()


def test_lessons_are_scenes_by_the_words_that_are_true_of_them() -> None:
    images = Scenes(60)
    lessons, train = images.lessons("train"), images.images("train")
    assert torch.equal(lessons.read(torch.tensor([7, 3])), train.read(torch.tensor([7, 3])))
    for scene, label in zip(train.attributes, lessons.labels, strict=True):
        said = {images.lesson_names[k] for k in label.nonzero()[:, 0].tolist()}
        words = {word for group in scene.groups for word in (group.kind, group.colour)}
        assert said == {scene.background} | words
        assert torch.equal(label[label > 0], torch.full((len(said),), 1 / len(said)))
    assert len({*images.lesson_names}) == len(images.lesson_names) == 8 + 23 + 8


def test_loaders_read_scenes_in_worker_processes() -> None:
    images = Scenes(size=64).images("train")
    copy = pickle.loads(pickle.dumps(images))
    assert copy.captions[3] == images.captions[3]
    plain, worked = (
        next(iter(training_loader(images, batch_size=8, seed=0, workers=workers)))
        for workers in (0, 1)
    )
    assert torch.equal(plain["image"], worked["image"])
    assert plain["caption"] == worked["caption"]
    assert plain["caption"] == [images.captions[i] for i in plain["index"].tolist()]


def test_what_is_kept_of_the_data_tells_scenes_apart() -> None:
    few, more = (Scenes(size=size).images("train") for size in (10, 12))
    assert [*few.contents()] == [*more.contents()][:10]
    assert len({digest for _, digest in more.contents()}) == 12
    names = Scenes().class_names()
    said = facts(names, {"train": few, "validation": more})
    assert said["fingerprint"] != said["validation_fingerprint"]


def test_bad_arguments_are_refused() -> None:
    assert isinstance(Scenes(), HoldsOut)
    with pytest.raises(ValueError, match="size must be at least 1, not 0"):
        Scenes().held_out(0)
    for none in ((), "pairing", ("pairings",)):
        with pytest.raises(
            ValueError, match="novelties must be a list of some of pairing, re"
        ) as e:
            Scenes().held_out(5, none)  # type: ignore[arg-type]
        assert str(e.value).endswith(f"not {none!r}")


def test_training_scenes_are_never_validation_scenes_of_another_seed() -> None:
    assert key_of(2**32 + 5, 0) == key_of(5, 1)  # NumPy cuts numbers into words of 32 bits
    assert problems({"seed": 2**32 - 1}, Scenes) == []
    assert [problem.key for problem in problems({"seed": 2**32}, Scenes)] == ["seed"]


def test_draws_are_a_function_of_key_index_and_purpose() -> None:
    def words(*where: int) -> list[int]:
        draws = Draws(key_of(0), *where)
        return [draws.below(2**64) for _ in range(300)]

    rows = [words(0, 0), words(1, 0), words(0, 1), words(2**40, 0)]
    assert words(1, 0) == rows[1]
    assert len({word for row in rows for word in row}) == 1200
    draws = Draws(key_of(5), 0, 0)
    counts = Counter(draws.between(3, 5) for _ in range(3_000))
    assert set(counts) == {3, 4, 5}
    assert all(abs(count - 1_000) < 130 for count in counts.values())  # 5 standard deviations


def test_a_group_is_named_as_its_kind() -> None:
    group = Group(0, 1, "small", "red", "sword", "gold", None)
    assert group.kind == plans.CAST[0].name
    assert "cherry" not in NAMES
