"""The corpus: files that run something, or swell, if they are read as carelessly as can be."""

import functools
import io
import operator
import os
import pickle
import runpy
import subprocess
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

from unnoise.config.compose import check_command_line
from unnoise.config.nodes import instantiate
from unnoise.models.build import named
from unnoise.models.diffusion import DiffusionModel
from unnoise.runs.checkpoints import LAYOUT
from unnoise.training.recipe import DiffusionRecipe, completed

TINY = (
    "network.channels=8 network.multipliers=[1,1] network.blocks=1 network.head_size=null "
    "network.attention_resolutions=[] batch_size=4 sampler.steps=2 max_steps=2 "
    "validation_images=2 data.size=60 data.validation_size=40 name=tiny "
    "logger=none sampler=ddim trainer=cpu"
).split()


def content():
    """What is in the checkpoint of an untrained model."""
    config, found = check_command_line("train", TINY)
    assert not found, found
    kinds = {key: instantiate(config[key]) for key in DiffusionRecipe.givers}
    config = completed(DiffusionRecipe, config, kinds)
    keys = (*DiffusionModel.networks, *DiffusionModel.parts)
    model = DiffusionModel.of({key: instantiate(config[key]) for key in keys}, kinds["data"].shape)
    state = model.state_dict()
    weights = {f"{prefix}{key}": state[key] for prefix in ("model.", "ema.model.") for key in state}
    return {"config": config, "state_dict": weights, "model": named(model), "layout": LAYOUT}


class Calls:
    """Is pickled as a call."""

    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


def calls(mark):
    """Pickles that each leave the file ``mark``, by name."""
    leave, python = f"touch {mark}", f"open({str(mark)!r}, 'w').close()"
    folder = mark.parent / "payloads"
    folder.mkdir(exist_ok=True)
    script, inner = folder / "hubconf.py", folder / "inner.pkl"
    script.write_text(f"def evil():\n    {python}\n{python}\n")
    inner.write_bytes(pickle.dumps(Calls(os.system, leave)))
    legacy = folder / "legacy.pt"
    torch.save(Calls(os.system, leave), legacy, _use_new_zipfile_serialization=False)
    objects = folder / "objects.npy"
    np.save(objects, np.array([Calls(os.system, leave)], dtype=object), allow_pickle=True)
    partial = functools.partial(os.system, leave)
    return {
        "os.system": Calls(os.system, leave),
        "os.popen": Calls(operator.methodcaller("read"), Calls(os.popen, leave)),
        "exec": Calls(exec, python),
        "eval": Calls(eval, python),
        "subprocess": Calls(subprocess.call, ["touch", str(mark)]),
        "runpy": Calls(runpy.run_path, str(script)),
        "torch.load": Calls(functools.partial(torch.load, weights_only=False), str(legacy)),
        "torch.hub": Calls(functools.partial(torch.hub.load, source="local"), str(folder), "evil"),
        "load_from_bytes": Calls(torch.storage._load_from_bytes, legacy.read_bytes()),
        "pickle.loads": Calls(pickle.loads, inner.read_bytes()),
        "numpy": Calls(np.load, str(objects), None, True),
        "partial": Calls(partial),
        "map": Calls(list, Calls(map, os.system, [leave])),
        "ordered dict": OrderedDict(a=Calls(os.system, leave)),
        "a key": {Calls(os.system, leave): 1},
        "operator.call": Calls(operator.call, partial),
    }


def hostile_files(folder, mark):
    """Files that run something when torch reads them without care: their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, payload in calls(mark).items():
        file = folder / name.replace(" ", "_")
        whole = {"config": {}, "state_dict": {"model.a": torch.zeros(1)}, "more": payload}
        torch.save(whole, f"{file}.ckpt")
        torch.save({"config": payload, "state_dict": {}}, f"{file}.config.ckpt")
        torch.save({"classifier": {"about": payload}, "state_dict": {}}, f"{file}.classifier.ckpt")
        torch.save(payload, f"{file}.protocol4.ckpt", pickle_protocol=4)
        torch.save(whole, f"{file}.legacy.ckpt", _use_new_zipfile_serialization=False)
        (folder / f"{file.name}.plain.ckpt").write_bytes(pickle.dumps(payload))
    evil = pickle.dumps(Calls(os.system, f"touch {mark}"), protocol=2)
    _tar(folder / "tar.ckpt", evil)
    one = zipfile.ZipFile(folder / "polyglot.ckpt", "w")
    for name in ("a/data.pkl", "a/version"):
        one.writestr(name, evil)
    one.close()
    behind = (folder / "polyglot.ckpt").read_bytes()
    (folder / "polyglot.ckpt").write_bytes(evil + behind)
    archive(folder / "two_pickles.ckpt", {"a/data.pkl": pickle.dumps({}, 2), "b/data.pkl": evil})
    archive(folder / "compressed.ckpt", {"a/data.pkl": evil}, zipfile.ZIP_DEFLATED)
    program = torch.jit.script(torch.nn.Linear(1, 1))
    torch.jit.save(program, str(folder / "program.ckpt"))
    return sorted(folder.glob("*.ckpt"))


def _tar(path, evil):
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("sys_info", "pickle", "storages", "tensors", "../escaped"):
            entry = tarfile.TarInfo(name)
            entry.size = len(evil)
            tar.addfile(entry, io.BytesIO(evil))


def archive(path, parts, method=zipfile.ZIP_STORED):
    """A zip archive of parts by name."""
    with zipfile.ZipFile(path, "w", method) as file:
        for name, part in parts.items():
            file.writestr(name, part)
    return path


class Storage:
    """Is pickled as torch pickles a storage: ``numel`` values in the part data/<key>."""

    def __init__(self, numel, key="0"):
        self.told = "storage", torch.FloatStorage, key, "cpu", numel


class _Pickler(pickle.Pickler):
    def persistent_id(self, thing):
        return thing.told if isinstance(thing, Storage) else None


def claims(path, *tensors, size=4):
    """A checkpoint of ``size`` bytes of data whose tensors (storage, shape, stride) claim more."""
    made = [
        Calls(torch._utils._rebuild_tensor_v2, storage, 0, shape, stride, False, OrderedDict())
        for storage, shape, stride in tensors
    ]
    stream = io.BytesIO()
    _Pickler(stream, protocol=2).dump({"config": {}, "state_dict": {"model.a": made}})
    keys = {storage.told[2] for storage, _, _ in tensors}
    data = {f"a/data/{key}": bytes(size) for key in keys}
    parts = {"a/data.pkl": stream.getvalue(), "a/version": b"3\n", "a/byteorder": b"little"}
    return archive(path, parts | data)


def swelling(path, size=2**29):
    """An .npz file of zeros: some hundred kB that say, and become, ``size`` bytes."""
    header = io.BytesIO()
    shape = (size // 3072, 32, 32, 3)
    told = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, told)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
        file.open("arr_0.npy", "w", force_zip64=True) as part,
    ):
        part.write(header.getvalue())
        for _ in range(size >> 22):
            part.write(bytes(2**22))
    return path


def png(path, width=60_000, height=60_000):
    """A picture of some bytes that says it has width × height pixels."""
    import struct
    import zlib

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path
