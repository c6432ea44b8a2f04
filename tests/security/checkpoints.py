"""Malicious checkpoints: they execute code when they are loaded, or need unlimited time or memory.

Each is written by a function of (path, canary). Those in LIVE create the file `canary` if torch loads them unchecked.
"""

import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

GOOD = {"0.weight": torch.ones(2, 2)}


class Call:
    """An object whose unpickling calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def zipped(pickled: bytes, path: Path, compression: int = zipfile.ZIP_STORED, **more: bytes) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", b"3\n")
        archive.writestr("archive/byteorder", b"little")
        for name, content in more.items():
            archive.writestr(f"archive/data/{name}", content)


def saved(content, path: Path, **options) -> None:
    with path.open("wb") as file:
        torch.save(content, file, **options)


def touch(canary: Path) -> Call:
    return Call(os.system, f"touch {canary}")


def legacy_tar(path: Path, canary: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for name in ("storages", "tensors", "pickle"):
            content = pickle.dumps(touch(canary), 2) if name == "pickle" else pickle.dumps(0, 2)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def hidden_in_a_lambda(path: Path, canary: Path) -> None:
    saved({"hyper_parameters": {"make": Call(partial, os.system, f"touch {canary}")}, "more": touch(canary)}, path)


Writer = Callable[[Path, Path], object]

LIVE: dict[str, Writer] = {
    "a call": lambda path, canary: saved(touch(canary), path),
    "a call among weights": lambda path, canary: saved(GOOD | {"b": touch(canary)}, path),
    "a call among hyper-parameters": lambda path, canary: saved({"hyper_parameters": {"a": [touch(canary)]}}, path),
    "a partial": hidden_in_a_lambda,
    "code": lambda path, canary: saved(Call(exec, f"open({str(canary)!r}, 'w').close()"), path),
    "code by getattr": lambda path, canary: saved(Call(getattr, Call(__import__, "os"), touch(canary)), path),
    "another protocol": lambda path, canary: saved(touch(canary), path, pickle_protocol=4),
    "torch's older format": lambda path, canary: saved(touch(canary), path, _use_new_zipfile_serialization=False),
    "numpy's objects in a checkpoint": lambda path, canary: saved(np.array([touch(canary)], object), path),
    "an opened file": lambda path, canary: saved(Call(open, str(canary), "w"), path),
}


def plain_pickle(path: Path, canary: Path) -> None:
    path.write_bytes(pickle.dumps(touch(canary)))


def numpy_file(path: Path, canary: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([touch(canary)], object))


def program(path: Path, _: Path) -> None:
    saved(GOOD, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/constants.pkl", pickle.dumps(()))
        archive.writestr("archive/code/__torch__.py", b"")


def bomb(path: Path, _: Path) -> None:
    zipped(pickle.dumps({}, 2), path, zipfile.ZIP_DEFLATED, a=bytes(50 << 20))


def overlapping(path: Path, _: Path) -> None:
    """Write an archive whose entries all refer to the same bytes."""
    zipped(pickle.dumps({}, 2), path, a=bytes(1 << 16))
    with zipfile.ZipFile(path, "a") as archive:
        entry = archive.getinfo("archive/data/a")
        for number in range(200):
            again = zipfile.ZipInfo(f"archive/data/{number}")
            again.header_offset, again.CRC = entry.header_offset, entry.CRC
            again.file_size, again.compress_size = entry.file_size, entry.compress_size
            archive.filelist.append(again)
        archive._didModify = True


def laughs(path: Path, _: Path) -> None:
    content: list[object] = []
    for _ in range(40):
        content = [content, content]
    saved({"hyper_parameters": content}, path)


def storage_of(path: Path, numbers: int) -> None:
    """Write a tensor whose storage has four numbers, but claims to have another number of them."""
    saved(GOOD, path)
    with zipfile.ZipFile(path) as archive:
        content = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in content.items():
            pickled = name.endswith("data.pkl")
            archive.writestr(name, part.replace(b"K\x04t", b"M\xff\xfft", 1) if pickled and numbers > 4 else part)


def deep(path: Path, _: Path) -> None:
    zipped(b"\x80\x02" + b"](" * 5000 + b"e" * 5000 + b".", path)


OTHER: dict[str, Writer] = {
    "a plain pickle": plain_pickle,
    "numpy's objects": numpy_file,
    "torch's oldest format": legacy_tar,
    "a program of TorchScript's": program,
    "a bomb": bomb,
    "entries that overlap": overlapping,
    "lists in lists": laughs,
    "lists below lists": deep,
    "a tensor without end": lambda path, _: saved({"0.weight": torch.ones(1).expand(1 << 40)}, path),
    "a storage that is not there": lambda path, _: storage_of(path, 65535),
    "bytes without end": lambda path, _: zipped(pickle.dumps(Call(bytearray, 1 << 40), 2), path),
    "a sparse tensor": lambda path, _: saved({"0.weight": torch.ones(2, 2).to_sparse()}, path),
    "a class that a library calls safe": lambda path, _: zipped(
        b"\x80\x02ctorch.distributed.device_mesh\nDeviceMesh\nX\x03\x00\x00\x00cpu]K\x00a\x86R.", path
    ),
    "a pipe": lambda path, _: os.mkfifo(path),
    "a device": lambda path, _: path.symlink_to("/dev/zero"),
    "a folder": lambda path, _: path.mkdir(),
    "an empty file": lambda path, _: path.write_bytes(b""),
    "noise": lambda path, _: path.write_bytes(bytes(range(256)) * 9),
}

ALL = LIVE | OTHER

REASONS = {
    "a call": "it refers to posix system",
    "another protocol": "it refers to a global by STACK_GLOBAL",
    "a program of TorchScript's": "TorchScript or torch.export archive",
    "a bomb": "is compressed, or its members exceed the file size",
    "entries that overlap": "is compressed, or its members exceed the file size",
    "lists in lists": "contains more values than any checkpoint",
    "a tensor without end": "exceeds its storage",
    "bytes without end": "it refers to __builtin__ bytearray",
    "a class that a library calls safe": "it refers to torch.distributed.device_mesh DeviceMesh",
    "a pipe": "it is not a regular file",
    "a device": "it is not a regular file",
}
"""Expected reasons of the refusal, for files that torch would refuse too late or not at all."""


def without(content, name):
    return {key: value for key, value in content.items() if key != name}


def with_learner(content, **changed):
    return content | {"learner": content["learner"] | changed}


CHANGES: dict[str, Callable[[dict], object]] = {
    "a list": lambda content: [content],
    "no loops": lambda content: without(content, "loops"),
    "empty loops": lambda content: content | {"loops": {"fit_loop": {}}},
    "loops of words": lambda content: content | {"loops": {"fit_loop": "x"}},
    "a step in words": lambda content: content | {"global_step": "5"},
    "a step below zero": lambda content: content | {"global_step": -5},
    "weights in a list": lambda content: content | {"state_dict": [1]},
    "weights that are words": lambda content: content | {"state_dict": {"network.weight": "x"}},
    "no optimizer": lambda content: content | {"optimizer_states": []},
    "another optimizer": lambda content: content | {"optimizer_states": [{"state": 3, "param_groups": []}]},
    "sums that are not finite": lambda content: with_learner(content, sums=torch.full((1, 1, 2), float("nan"))),
    "sums of another shape": lambda content: with_learner(content, sums=torch.zeros(1, 7, 3, 2)),
    "a place in no data": lambda content: with_learner(content, loader={"epoch": 0, "next": "x"}),
    "values in a list": lambda content: with_learner(content, values=[1]),
    "a history of words": lambda content: content | {"callbacks": {"History": {"rows": "x", "times": 3}}},
    "a class to be made": lambda content: content | {"hyper_parameters": {"_class_path": "os.system"}},
    "an instantiator": lambda content: content | {"hyper_parameters": {"_instantiator": "os.system", "a": 1}},
    "results in words": lambda content: content | {"trained": {"steps": "many"}},
    "results in a list": lambda content: content | {"trained": [1]},
    "a version that is none": lambda content: content | {"pytorch-lightning_version": 3},
}
"""Changes that make the content of an intact checkpoint invalid."""


def kept(**state):
    """Replace the state of ModelCheckpoint, which lists the files that it may delete."""
    return lambda content: content | {"callbacks": content["callbacks"] | {"ModelCheckpoint": state}}


STRAYS: dict[str, Callable[[dict], object]] = {
    "a newest in a home": kept(best_model_score=None, best_model_path="", last_model_path="local://~/Documents"),
    "a newest above": kept(best_model_path="", last_model_path="checkpoints/../../../victim"),
    "a newest elsewhere": kept(best_model_path="", last_model_path="/victim"),
    "a newest where one is": kept(best_model_path="", last_model_path="victim"),
    "a best by an address": kept(best_model_path="simplecache::file:///victim"),
    "a best that is worst": kept(best_model_path="", kth_best_model_path="~/Documents"),
    "a best of several": kept(best_model_path="", best_k_models={"local:///victim": torch.tensor(0.0)}),
    "a best of several elsewhere": kept(best_model_path="", best_k_models={"/victim": torch.tensor(0.0)}),
    "a folder of all": kept(dirpath="/", best_model_path="/victim/../x", last_model_path=""),
    "a folder that is none": kept(dirpath="", best_model_path="", last_model_path="victim"),
    "a folder that is an address": kept(dirpath="local:///", best_model_path="", last_model_path="victim"),
    "batches to leave out": lambda content: content | {
        "callbacks": {"SpikeDetection": {"dirpath": "/victim", "bad_batches_path": "/victim/x.json"}}
    },
    "a best of Lightning's first versions": lambda content: content | {
        "checkpoint_callback_best_model_path": "local://~/Documents", "pytorch-lightning_version": "0.9.0",
    },
}  # fmt: skip
"""Changes after which a callback would delete or overwrite files outside of the run folder."""
