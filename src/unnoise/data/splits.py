"""Which files of a folder are for training and which for validation, and their classes."""

import hashlib
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from unnoise.data.source import Split
from unnoise.data.walk import Listing, by_number

TRAIN = ("train", "training")
VALIDATION = ("validation", "valid", "val", "dev", "test", "testing")
"""Names of split folders, in any case. Of several for validation the first of this order counts."""


class Arranged(NamedTuple):
    """The classes of a listing's files, and of each split the n rows in the listing and n labels.

    ``notes`` say which pictures are in neither split.
    """

    class_names: tuple[str, ...]
    splits: dict[Split, tuple[np.ndarray, np.ndarray]]
    notes: tuple[str, ...]


def held_out(key: bytes, share: float) -> bool:
    """Whether a key is one of the ``share`` for validation: it stays so when others are added."""
    return int.from_bytes(hashlib.sha256(key).digest()[:8]) < share * 2**64


def arranged(listing: Listing, share: float) -> Arranged:
    """Take split folders at their word; else hold out ``share`` of the files by a hash of the path.

    Raises:
        ValueError: it is not clear which folders are splits and which are classes, or a class has
            no pictures, or none to train with, or none in one of the split folders.
    """
    known: dict[str, int] = {}  # folders with pictures in them, numbered
    names = listing.names
    number = (known.setdefault(name.rpartition("/")[0], len(known)) for name in names)
    folder = np.fromiter(number, np.int64, len(names))
    paths = [path.split("/") if path else [] for path in known]
    given = _split_folders(listing.root, paths)
    depth = 1 if given else 0
    class_of = [path[depth] if len(path) > depth else "" for path in paths]
    found: dict[str, set[str]] = {top: set() for top in given.values()} or {"": set()}
    for path, name in zip(paths, class_of, strict=True):
        top = path[0] if given and path else ""
        if top in found:
            found[top].add(name)
    classes = _class_names(listing, found)
    label = np.array([classes.index(name) if name in classes else 0 for name in class_of])
    if given:
        inside = {
            split: np.isin(folder, [k for k, path in enumerate(paths) if path[:1] == [top]])
            for split, top in given.items()
        }
    else:
        held = (held_out(name.encode("utf-8", "surrogateescape"), share) for name in names)
        validation = np.fromiter(held, np.bool_, len(names))
        inside = {"train": ~validation, "validation": validation}
        trained = set(label[folder[~validation]].tolist())
        if trained and len(trained) < len(classes):
            missing = next(name for k, name in enumerate(classes) if k not in trained)
            raise ValueError(
                f"data.root {listing.root}: all pictures of the class {missing} fall to validation:"
                " add some, or lower data.validation_share"
            )
    rows = {split: mask.nonzero()[0] for split, mask in inside.items()}
    return Arranged(
        classes,
        {split: (these, label[folder[these]]) for split, these in rows.items()},
        _notes(paths, given),
    )


def _split_folders(root: str, paths: Sequence[Sequence[str]]) -> dict[Split, str]:
    """The top folders that are the splits; none if the top folders are classes."""
    tops = sorted({path[0] for path in paths if path}, key=by_number)
    train, validation = _named(tops, TRAIN), _named(tops, VALIDATION)
    others = [top for top in tops if top not in (*train, *validation)]
    if len(train) == 1 and validation and not others:
        return {"train": train[0], "validation": validation[0]}
    if (
        others
        and train
        and not validation
        and not any(len(path) > 1 for path in paths if path[:1] == train)
    ):
        train = []  # a train is also a thing
    if len(train) > 1:
        raise ValueError(
            f"data.root {root} has {' and '.join(train)}: put all that is for training into one"
        )
    splits = ", ".join([*train, *validation])
    if splits and others:
        raise ValueError(
            f"data.root {root} has {splits}, which reads as a split, beside {_some(others)}: "
            "rename it if it is a class; else put the class folders into train and into val"
        )
    if splits:
        lacking = "val" if train else "train"
        raise ValueError(
            f"data.root {root} has {splits}, but no pictures in {lacking}: add them there, or hold "
            f"out a share of {root}/{[*train, *validation][0]} by naming that folder"
        )
    for top in tops:
        below = sorted({path[1] for path in paths if path[:1] == [top] and len(path) > 1})
        if _named(below, TRAIN) and _named(below, VALIDATION):
            raise ValueError(
                f"data.root {root} has splits ({_some(below)}) inside {top}: name that folder, or "
                "put train and val right below data.root, and the classes into them"
            )
    return {}


def _named(folders: Collection[str], names: Sequence[str]) -> list[str]:
    """The folders that have one of the names, in the order of the names."""
    return sorted(
        (folder for folder in folders if folder.lower() in names),
        key=lambda folder: (names.index(folder.lower()), folder),
    )


def _class_names(listing: Listing, found: dict[str, set[str]]) -> tuple[str, ...]:
    """The classes that are ``found`` in each of the split folders, or in the root ""."""
    for top, names in found.items():
        here = f"data.root {listing.root}" + (f": {top}" if top else "")
        own = sorted(names - {""}, key=by_number)
        if "" in names and own:
            raise ValueError(
                f"{here} has images of its own beside class folders ({_some(own)}): put them into "
                "a folder too"
            )
        inside = f"{top}/" if top else ""
        for folder in listing.folders if own else ():
            name = folder.removeprefix(inside)
            if folder.startswith(inside) and "/" not in name and name not in names:
                why = listing.left_out(folder) or "it is empty"
                raise ValueError(
                    f"{here} has a folder {name} without pictures ({why}) among its class folders: "
                    "remove it, or fill it with pictures"
                )
    first, *rest = found.items()
    for top, names in rest:
        for name in sorted(names ^ first[1], key=by_number):
            there, not_there = (top, first[0]) if name in names else (first[0], top)
            what = f"the class {name}" if name else "pictures outside any class folder"
            raise ValueError(
                f"data.root {listing.root}: {there} has {what}, {not_there} has not: both splits "
                "need pictures of the same classes"
            )
    return tuple(sorted(first[1] - {""}, key=by_number))


def _notes(paths: Sequence[Sequence[str]], given: dict[Split, str]) -> tuple[str, ...]:
    """What is beside the split folders that were taken."""
    if not given:
        return ()
    others = sorted({path[0] for path in paths if path} - {*given.values()})
    notes = [f"{top} is not read, since {given['validation']} is" for top in others]
    if [] in paths:
        notes.append("pictures beside the split folders are not read")
    return tuple(notes)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
