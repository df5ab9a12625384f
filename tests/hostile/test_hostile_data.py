"""Pictures, arrays and data sets from anyone: none is executed, and none swells."""

import gzip
import io
import os
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from payloads import Calls, Storage, archive, claims, png, swelling

from unnoise.cli import report
from unnoise.data.cifar import CIFAR10
from unnoise.data.classics import MNIST
from unnoise.data.folders import ImageFolder
from unnoise.data.given import given_pictures
from unnoise.data.sprites import SpritesFile
from unnoise.evaluation.gallery import Gallery, SampleSet
from unnoise.untrusted import UnsafeFile, load_arrays


@pytest.fixture
def mark(tmp_path):
    """The file that would be there if anything had been executed."""
    yield tmp_path / "executed"
    assert not (tmp_path / "executed").exists()


@pytest.fixture
def objects(mark):
    """An array that is a pickle."""
    return np.array([Calls(os.system, f"touch {mark}")], dtype=object)


def test_arrays_of_objects_are_not_read(mark, objects, tmp_path):
    np.save(tmp_path / "file.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "file.npz", objects, pixels=objects)
    np.savez_compressed(tmp_path / "packed.npz", objects)
    (tmp_path / "plain.npy").write_bytes(pickle.dumps(objects))
    archive(tmp_path / "pickle.npz", {"arr_0.npy": pickle.dumps(objects), "x.pkl": b"x"})
    for name in ("file.npy", "file.npz", "packed.npz", "plain.npy", "pickle.npz"):
        with pytest.raises(ValueError, match=name):
            given_pictures(tmp_path / name)
        with pytest.raises(UnsafeFile, match=name):
            load_arrays(tmp_path / name)


def test_the_array_would_be_executed_by_a_careless_reader(tmp_path):
    np.save(tmp_path / "file.npy", np.array([Calls(os.system, f"touch {tmp_path / 'done'}")]))
    np.load(tmp_path / "file.npy", allow_pickle=True)
    assert (tmp_path / "done").exists()


def test_the_course_s_arrays_are_not_pickles(mark, objects, tmp_path):
    np.save(tmp_path / SpritesFile.pixels_name, objects, allow_pickle=True)
    np.save(tmp_path / SpritesFile.labels_name, objects, allow_pickle=True)
    with pytest.raises(ValueError, match=SpritesFile.pixels_name):
        SpritesFile(str(tmp_path)).prepare()


def test_an_array_is_not_larger_than_its_file(tmp_path):
    head = io.BytesIO()
    told = {"descr": "|u1", "fortran_order": False, "shape": (2**40,)}
    np.lib.format.write_array_header_1_0(head, told)
    (tmp_path / "file.npy").write_bytes(head.getvalue())
    with pytest.raises(UnsafeFile, match=r"file\.npy"):
        load_arrays(tmp_path / "file.npy")


def test_a_drawn_file_of_a_shared_run_is_not_a_pickle(mark, objects, tmp_path):
    (tmp_path / "step_00000001.ckpt").write_bytes(b"")
    gallery = Gallery(tmp_path, SampleSet(checkpoint=tmp_path / "step_00000001.ckpt", recipe={}))
    gallery.folder.mkdir(parents=True)
    np.savez(gallery.folder / "000000-000000.npz", pixels=objects, cost=objects)
    with pytest.warns(UserWarning, match="is damaged"):
        assert gallery.missing(1, 1) == [range(1)]


def test_parts_that_lead_out_of_an_archive_are_refused(tmp_path):
    for name in ("../escaped.npy", "/tmp/escaped.npy"):
        archive(tmp_path / "file.npz", {name: b"x"})
        with pytest.raises(UnsafeFile, match="leads out of it"):
            load_arrays(tmp_path / "file.npz")


def test_members_of_a_data_set_s_archive_stay_in_it(mark, tmp_path):
    evil = pickle.dumps(Calls(os.system, f"touch {mark}"))
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as tar:
        for name in ("../../test_batch.bin", "/tmp/data_batch_1", "data_batch_2", "batches.meta"):
            entry = tarfile.TarInfo(name)
            entry.size = len(evil)
            tar.addfile(entry, io.BytesIO(evil))
        link = tarfile.TarInfo("data_batch_1.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    for split in ("train", "validation"):
        with pytest.raises(ValueError, match=r"cifar-10-binary\.tar\.gz"):
            CIFAR10(str(tmp_path)).images(split)
    assert [path.name for path in tmp_path.iterdir()] == ["cifar-10-binary.tar.gz"]


def test_pictures_that_claim_billions_of_pixels_are_not_decoded(tmp_path):
    (tmp_path / "pictures").mkdir()
    png(tmp_path / "pictures" / "bomb.png")
    with pytest.raises(ValueError, match=r"bomb\.png: it has 3,600,000,000 pixels"):
        given_pictures(tmp_path / "pictures")
    source = ImageFolder(str(tmp_path / "pictures"), 16, in_memory=True, validation_share=0.001)
    with pytest.raises(ValueError, match=r"bomb\.png"):
        source.images("train").read(np.array([0]))


def test_a_report_of_a_run_with_such_a_picture_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "samples").mkdir(parents=True)
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1, "time": 1.0, "loss": 1}\n')
    (tmp_path / "run" / "config.yaml").write_text("name: run\n")
    for name in ("step_00000001.png", "denoising.gif", "forward_process.png"):
        png(tmp_path / "run" / "samples" / name)
    monkeypatch.setattr(sys, "argv", ["unnoise-report", "run"])
    report.main()
    assert (tmp_path / "run" / "report.html").exists()


BOUND = 350
"""MB that reading the files below may add; each would become 500 MB or more."""
READ = """
import resource, sys
from pathlib import Path
import torch, safetensors, numpy, PIL.Image, yaml
import unnoise
from unnoise.data.cifar import CIFAR10
from unnoise.data.classics import MNIST
from unnoise.safe import load_arrays, load_tensors, load_yaml

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

folder, before = Path(sys.argv[1]), peak()
for read, name in (
    (load_tensors, "tensor.ckpt"),
    (load_arrays, "arrays.npz"),
    (load_yaml, "laughs.yaml"),
    (lambda path: MNIST(str(folder)).images("validation"), "t10k-images-idx3-ubyte.gz"),
    (lambda path: CIFAR10(str(folder)).images("validation"), "cifar-10-binary.tar.gz"),
):
    try:
        read(folder / name)
    except ValueError as error:
        assert name in str(error), error
        print(name, peak() - before)
    else:
        sys.exit(f"{name} was read")
"""


@pytest.mark.slow
def test_what_is_made_to_swell_is_refused_before_it_does(tmp_path):
    claims(tmp_path / "tensor.ckpt", (Storage(1), (2**28,), (1,)))
    swelling(tmp_path / "arrays.npz")
    lines = ["a0: [x, x, x, x, x, x, x, x, x, x]".replace("[", "&a0 [")]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (tmp_path / "laughs.yaml").write_text("\n".join(lines))
    zeros = bytes(2**22)
    for name in ("t10k-images-idx3-ubyte.gz", "cifar-10-binary.tar.gz"):
        with gzip.open(tmp_path / name, "wb", compresslevel=1) as file:
            for _ in range(128):  # 512 MB
                file.write(zeros)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(b"")
    assert all(path.stat().st_size < 4e6 for path in Path(tmp_path).iterdir())
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    grown = {name: int(size) for name, size in map(str.split, done.stdout.splitlines())}
    assert len(grown) == 5
    assert max(grown.values()) < BOUND, grown


def test_a_good_data_set_is_read(tmp_path):
    for name, shape in (("images-idx3", (2, 28, 28)), ("labels-idx1", (2,))):
        head = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4) for n in shape)
        with gzip.open(tmp_path / f"t10k-{name}-ubyte.gz", "wb") as file:
            file.write(head + bytes(int(np.prod(shape))))
    assert len(MNIST(str(tmp_path)).images("validation")) == 2
