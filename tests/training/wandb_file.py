"""Reads back the file that an offline run of Weights & Biases wrote."""

import json
import struct
import time

from wandb.proto.wandb_internal_pb2 import Record

from unnoise.training.logging.wandb import AXIS


def records(data):
    """The records of a .wandb file: blocks of 32 KiB, chunks with checksum, length and kind."""
    position, whole = 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        if position + 7 + length > len(data):
            return  # the file is still being written
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or its last chunk
            yield Record.FromString(whole)
            whole = b""


def plain(items):
    """Keys to values; nested keys joined by dots."""
    return {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items}


class Read:
    """What an offline run wrote."""

    def __init__(self, folder):
        (self.file,) = folder.glob("*.wandb")
        kinds, deadline = [], time.monotonic() + 10
        while "exit" not in dict(kinds):  # it is closed a moment after the run
            assert time.monotonic() < deadline
            kinds = [(r.WhichOneof("record_type"), r) for r in records(self.file.read_bytes())]
        self.of = {kind: [getattr(r, kind) for k, r in kinds if k == kind] for kind, _ in kinds}
        self.run = self.of["run"][0]
        self.config = plain(self.run.config.update)
        self.history = [plain(row.item) for row in self.of["history"]]
        self.exit = [each.exit_code for each in self.of["exit"]]
        self.summary = {}
        for each in self.of["summary"]:
            self.summary |= plain(each.update)

    def column(self, key):
        return {row[AXIS]: row[key] for row in self.history if key in row}

    def picture(self, name, step):
        return self.file.parent / "files" / self.column(f"{name}.path")[step]


def parts(run_dir):
    return [Read(folder) for folder in sorted(run_dir.glob("wandb/offline-run-*"))]
