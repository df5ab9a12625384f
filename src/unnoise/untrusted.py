"""Readers of files from anyone: they execute nothing, and take no more memory than the file has.

Every file of tensors, arrays or YAML that may come from somewhere else is opened here. Readers
raise FileNotFoundError where there is no such file, and UnsafeFile where it is damaged or no such.
"""

import json
import pickletools
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import yaml  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from torch import Tensor, nn


LARGE, RATIO = 2**28, 100
"""Bytes that any archive may hold, and how many times its own size one that holds more may."""
MOST_PARTS, DEEPEST = 1_000_000, 100
"""Of nested containers, each counted as often as it is referred to."""
LONGEST = 2**22
"""Bytes of a YAML or a JSON file."""

_NAMED = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2"} | {
    f"torch {kind}Storage"
    for kind in (
        *("Double", "Float", "Half", "BFloat16", "ComplexDouble", "ComplexFloat"),
        *("Long", "Int", "Short", "Char", "Byte", "Bool", "Untyped"),
    )
}
"""What the pickle of a checkpoint may name: tensors need no more."""
_OPCODES = {
    *("PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "GLOBAL", "REDUCE", "BUILD"),
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "BINPERSID"),
    *("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("APPEND", "APPENDS", "SETITEM", "SETITEMS"),
    *("BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
}
"""The instructions that torch.save writes plain containers and tensors with."""


class UnsafeFile(ValueError):
    """A file is damaged, of another kind, or may execute code; the message says which and why."""

    def __init__(self, path: str | Path, reason: object) -> None:
        super().__init__(f"{path} {' '.join(str(reason).split())}")


@contextmanager
def _refused(path: Path, kind: str) -> Iterator[None]:
    """Raise UnsafeFile for whatever a damaged file makes a reader raise."""
    try:
        yield
    except (UnsafeFile, MemoryError):
        raise
    except Exception as error:
        raise UnsafeFile(path, f"is {kind}: {error}") from error


def load_tensors(path: str | Path) -> Any:
    """The plain containers and tensors of a checkpoint, which stay in the file until they are used.

    Only the zip format of torch.save is read, and of its pickle only what makes containers and
    tensors, whatever torch or an environment variable would allow.

    Raises:
        UnsafeFile: the file is damaged, of another kind, or claims to hold more than it does.
    """
    import torch

    size = (path := Path(path)).stat().st_size
    _check_pickle(path)
    with _refused(path, "no whole file of tensors"):
        # Sizes first, on a device without memory.
        outline = torch.load(path, map_location="meta", weights_only=True)
        _check_sizes(path, outline, size)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if (needed := _check_sizes(path, content, size)) > size:
            raise UnsafeFile(path, f"has {size:,} bytes, but tensors of {needed:,}")
        return content


def _check_pickle(path: Path) -> None:
    """Raise UnsafeFile unless it is a zip of torch.save with plain containers and tensors only."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            old = "is no zip archive of torch.save. An older torch wrote plain pickles"
            way_out = "whoever made the file can load and save it with a new one"
            raise UnsafeFile(path, f"{old}, which can run anything: {way_out}")
    with _archive(path) as archive:
        names = archive.namelist()
        folders = {name.partition("/")[0] for name in names}
        inside = {name.partition("/")[2] for name in names}
        if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
            raise UnsafeFile(path, "is a TorchScript program, not a file of tensors")
        if len(folders) != 1 or "data.pkl" not in inside:
            raise UnsafeFile(path, "is an archive of something else than torch.save writes")
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise UnsafeFile(path, "has compressed parts, which torch.save does not write")
        pickle = archive.read(f"{folders.pop()}/data.pkl")
    with _refused(path, "damaged: its pickle"):
        for code, argument, _ in pickletools.genops(pickle):
            if code.name == "GLOBAL" and argument not in _NAMED:
                raise UnsafeFile(path, f"names {argument!r}, which tensors have no use for")
            if code.name not in _OPCODES:
                odd = f"has {code.name} in its pickle"
                raise UnsafeFile(path, f"{odd}, which tensors have no use for")


def _check_sizes(path: Path, tree: Any, size: int) -> int:
    """Raise UnsafeFile unless each tensor fits into a file of ``size`` bytes.

    Returns the bytes of all; what several share counts once, but not on the meta device.
    """
    import torch

    storages: dict[int, int] = {}

    def parts(node: Any) -> Iterable[Any]:
        if isinstance(node, torch.Tensor):
            storage = node.untyped_storage()
            storages[storage._cdata] = storage.nbytes()
            if (needed := max(node.nbytes, storage.nbytes())) > size:
                raise UnsafeFile(path, f"has {size:,} bytes, but a tensor of {needed:,}")
        if isinstance(node, Mapping):
            return node.values()
        return node if isinstance(node, list | tuple) else ()

    _check_nesting(path, tree, parts)
    return sum(storages.values())


def _check_nesting(path: Path, tree: Any, parts: Callable[[Any], Iterable[Any]]) -> None:
    """Raise UnsafeFile if a tree is deeper than ``DEEPEST`` or has more than ``MOST_PARTS``.

    A few lines can nest references to 10⁹ parts, or to the tree itself.
    """
    known: dict[int, tuple[int, int]] = {}  # how many parts, and how deep

    def measured(node: Any, depth: int) -> tuple[int, int]:
        if id(node) in known:
            return known[id(node)]
        number = height = 0
        for part in parts(node) if depth < DEEPEST else ():
            inner, below = measured(part, depth + 1)
            number, height = number + inner, max(height, below)
        found = number + 1, height + 1
        if depth + height >= DEEPEST:
            raise UnsafeFile(path, f"is nested more than {DEEPEST} deep")
        if found[0] > MOST_PARTS:
            raise UnsafeFile(path, f"refers to parts of itself more than {MOST_PARTS:,} times")
        known[id(node)] = found
        return found

    measured(tree, 0)


def check_fit(path: Path, build: Callable[[], "nn.Module"], state: Mapping[str, "Tensor"]) -> None:
    """Compare weights with those of a network, before the network takes memory.

    Raises:
        UnsafeFile: a weight is missing, or has another shape.
    """
    import torch

    with torch.device("meta"):
        network = build()
    for name, wanted in network.state_dict().items():
        found = tuple(state[name].shape) if name in state else "missing"
        is_number = name in state and state[name].is_floating_point()
        if found != tuple(wanted.shape) or is_number != wanted.is_floating_point():
            own = f"its own config wants {tuple(wanted.shape)}"
            raise UnsafeFile(path, f"has weights {name} {found}, but {own}")


def load_safetensors(path: Path) -> tuple[dict[str, "Tensor"], dict[str, str]]:
    """The tensors of a safetensors file, and its metadata."""
    from safetensors import safe_open

    size = path.stat().st_size
    with _refused(path, "no whole safetensors file"):
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
            if header > size - 8:
                raise ValueError(f"it has {size:,} bytes, but a header of {header:,}")
            json.loads(file.read(header), object_pairs_hook=_distinct)
        with safe_open(path, "pt") as file:
            return {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}  # noqa: SIM118


def load_json(path: Path) -> Any:
    """The plain containers and values of a JSON file in UTF-8; UnsafeFile if it is none."""
    with _refused(path, "no whole JSON file"), path.open("rb") as file:
        text = file.read(LONGEST).decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=_distinct)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a name is there twice")
    return found


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name, or that of an .npy file under the name "".

    Raises:
        UnsafeFile: the file is damaged, none, holds objects, or is made to swell.
    """
    size = path.stat().st_size
    with _refused(path, "no whole .npz or .npy file"):
        with path.open("rb") as file:
            packed = file.read(4) == b"PK\x03\x04"
        if packed:
            _archive(path).close()
            with np.load(path, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays.files}
            if odd := [name for name, part in found.items() if not isinstance(part, np.ndarray)]:
                raise ValueError(f"its part {odd[0]!r} is no array")
            return found
        whole = np.load(path, allow_pickle=False, mmap_mode="r")
        if whole.nbytes > size:
            raise ValueError(f"it has {size:,} bytes, but an array of {whole.nbytes:,}")
        return {"": np.array(whole)}


def _archive(path: Path) -> zipfile.ZipFile:
    """Open a zip archive. Raise UnsafeFile if its sizes or the names of its parts are false."""
    with _refused(path, "no whole archive"):
        archive = zipfile.ZipFile(path)
    parts, size = archive.infolist(), path.stat().st_size
    held = sum(part.file_size for part in parts)
    wrong = ""
    for part in parts:
        # zipfile cuts a name at a zero byte; other readers may not
        name = part.orig_filename.replace("\\", "/")
        if name.startswith("/") or ".." in name.split("/") or "\0" in name:
            wrong = f"has a part {part.orig_filename!r}, which leads out of it"
    if len({part.filename for part in parts}) < len(parts):
        wrong = "has two parts of one name"
    elif sum(part.compress_size for part in parts) > size:
        wrong = f"has {size:,} bytes, but its parts, which overlap, have more"
    elif held > LARGE and held > RATIO * size:
        wrong = f"has {size:,} bytes, but would swell to {held:,}"
    if wrong:
        archive.close()
        raise UnsafeFile(path, wrong)
    return archive


def load_yaml(path: Path) -> Any:
    """The plain containers and values of a YAML file in UTF-8, with a byte-order mark or without.

    Raises:
        UnsafeFile: it is no YAML, too long, names objects, has a key twice or too many references.
    """
    return yaml_in(path)[1]


def yaml_in(path: Path) -> tuple[str, Any]:
    """A YAML file's text, without a byte-order mark, and what ``load_yaml`` makes of it."""
    if path.stat().st_size > LONGEST:
        raise UnsafeFile(path, f"has more than {LONGEST:,} bytes")
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        kind = "UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "another encoding"
        row = content[: error.start].count(b"\n") + 1
        raise UnsafeFile(path, f"is {kind}, not UTF-8 (row {row}): save it as UTF-8") from error
    # libyaml, where it is there, is ten times as fast
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with _refused(path, "no whole YAML file"):
        try:
            _check_nesting(path, yaml.compose(text, loader), _yaml_parts)
            return text, yaml.load(text, loader)
        except yaml.MarkedYAMLError as error:
            mark, tab = error.problem_mark, "; indent with spaces, not tabs" * ("\t" in text)
            raise ValueError(f"row {mark.line + 1}: {error.problem}{tab}") from error
        except yaml.reader.ReaderError as error:
            row = text[: error.position].count("\n") + 1
            raise ValueError(f"row {row}: {error.reason}") from error


def _yaml_parts(node: yaml.Node) -> Iterable[yaml.Node]:
    """Raise ValueError if a mapping has a key twice, of which YAML would keep the last."""
    if not isinstance(node, yaml.MappingNode):
        found = node.value if isinstance(node, yaml.SequenceNode) else ()
        return cast(Iterable[yaml.Node], found)
    keys: set[str] = set()
    for key in (pair[0] for pair in node.value if isinstance(pair[0], yaml.ScalarNode)):
        if key.value in keys and key.value != "<<":
            raise ValueError(f"row {key.start_mark.line + 1}: the key {key.value} is there twice")
        keys.add(key.value)
    return [part for pair in node.value for part in pair]
