"""What the data of a run hold, so that other data under the same config are noticed.

The ``facts`` go into manifest and checkpoints: numbers and fingerprints of both splits, and the
class names. Beside them a run keeps a short digest of each picture, to tell which ones differ.
"""

import gzip
import json
import textwrap
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from unnoise.data.source import Images, Split
from unnoise.files import write_durably

MOST = 100_000
"""Pictures of a split whose digests are kept; of more, their number in each class."""
MOST_BYTES = 2**28  # of the kept file, unpacked
NAMED = 3  # pictures or classes that a message names
Facts = dict[str, Any]
Splits = Mapping[Split, Images]
KEYS: dict[Split, tuple[str, str]] = {
    "train": ("train_images", "fingerprint"),
    "validation": ("validation_images", "validation_fingerprint"),
}


def facts(class_names: Sequence[str], splits: Splits) -> Facts:
    """Of each split the number of pictures and the fingerprint; the class names, by label."""
    found: Facts = {}
    for split, images in splits.items():
        number, fingerprint = KEYS[split]
        found |= {number: len(images), fingerprint: images.fingerprint}
    quarantined = [line for images in splits.values() for line in images.quarantined]
    return {**found, "classes": list(class_names), "quarantined": quarantined}


def keep(path: Path, splits: Splits) -> None:
    """Write what tells pictures apart, unless the file has it already."""
    held = _held(path)
    there = {split: each["fingerprint"] for split, each in held.items()}
    if there == {split: images.fingerprint for split, images in splits.items()}:
        return
    text = json.dumps({split: _summary(images) for split, images in splits.items()})
    packed = gzip.compress(text.encode(), 1, mtime=0)
    write_durably(path, lambda temporary: temporary.write_bytes(packed))


def difference(then: Facts, kept: Path, class_names: Sequence[str], splits: Splits) -> str | None:
    """What the data hold other than ``then``, in one line; None if it is the same.

    What ``then`` does not say, as that of an older run may not, is not compared. ``kept`` is the
    file of ``keep``, if there is one.
    """
    parts = []
    if then.get("classes", list(class_names)) != list(class_names):
        pairs = enumerate(zip_longest(then["classes"], class_names, fillvalue="nothing"))
        label, (was, now) = next((k, pair) for k, pair in pairs if pair[0] != pair[1])
        parts.append(f"label {label} meant {was}, and would mean {now}")
    for split, images in splits.items():
        number, fingerprint = KEYS[split]
        if then.get(fingerprint, images.fingerprint) != images.fingerprint:
            before = _held(kept).get(split, {})
            known = before.get("fingerprint") == then[fingerprint]
            which = list(_which(before, _summary(images), class_names)) if known else []
            which_ones = (
                f" ({'; '.join(which) or 'the same, under other labels or in another order'})"
                if known
                else ""
            )
            parts.append(f"{split} had {then[number]:,} pictures, now {len(images):,}{which_ones}")
    return "; ".join(parts) or None


def mapping(class_names: Sequence[str], width: int = 100) -> str:
    """Which label means which class, in one line; empty where the names say it themselves."""
    shown = (name.encode(errors="backslashreplace").decode() for name in class_names)
    pairs = [f"{label}={name}" for label, name in enumerate(shown)]
    if all(name == str(label) for label, name in enumerate(class_names)):
        return ""
    return textwrap.shorten(f"classes: {', '.join(pairs)}", width, placeholder=f" … {pairs[-1]}")


def _summary(images: Images) -> dict[str, Any]:
    """What is kept of a split."""
    few = len(images) <= MOST
    pictures = {name: digest[:8] for name, digest in images.contents()} if few else None
    counts = torch.bincount(images.labels).tolist()
    return {"fingerprint": images.fingerprint, "counts": counts, "pictures": pictures}


def _held(path: Path) -> dict[str, dict[str, Any]]:
    """What was kept; nothing if there is no such file, or a damaged one."""
    try:
        with gzip.open(path) as file:
            found = json.loads(file.read(MOST_BYTES))
        kinds = {"fingerprint": str, "counts": list, "pictures": dict | None}
        parts = [(each[key], kind) for each in found.values() for key, kind in kinds.items()]
        return found if all(isinstance(part, kind) for part, kind in parts) else {}
    except (OSError, EOFError, zlib.error, ValueError, AttributeError, TypeError, LookupError):
        return {}


def _which(
    before: dict[str, Any], now: dict[str, Any], class_names: Sequence[str]
) -> Iterator[str]:
    """The first pictures that are new, gone or changed; of many, the classes with more or less."""
    old, new = before["pictures"], now["pictures"]
    if old is None or new is None:
        pairs = enumerate(zip_longest(before["counts"], now["counts"], fillvalue=0))
        named = dict(enumerate(class_names))
        counts = [f"{named.get(k, k)} {a:,} → {b:,}" for k, (a, b) in pairs if a != b]
        yield from [", ".join(counts[:NAMED])] if counts else []
        return
    added, lost = _surplus(new, old), _surplus(old, new)
    found = {
        "new": [name for name in added if name not in lost],
        "gone": [name for name in lost if name not in added],
        "changed": [name for name in added if name in lost],
    }
    for what, names in found.items():
        if names:
            more = ", …" if len(names) > NAMED else ""
            yield f"{len(names):,} {what}: {', '.join(names[:NAMED])}{more}"


def _surplus(these: Mapping[str, str], those: Mapping[str, str]) -> list[str]:
    """The names of pictures that only these hold, whatever name they have among those."""
    left, found = Counter(these.values()) - Counter(those.values()), []
    for name, digest in these.items():
        if left[digest] and those.get(name) != digest:
            left[digest] -= 1
            found.append(name)
    return found
