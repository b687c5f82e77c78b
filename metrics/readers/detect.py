"""From a path to an open model: which format it is, and which files belong together.

Formats are told by content first (:data:`READERS`), by name only where content says nothing. The files of a
distributed checkpoint (``.metadata``, ``*.distcp``) are read together, as the directory that holds them; so is every
directory with the ``_METADATA`` of Orbax, with all that is below it.

A directory is one model, made of, in this order:

1. its ``*.safetensors.index.json``; else its ``*.bin.index.json`` when there is no ``*.safetensors`` file;
2. all its ``*.safetensors`` files; else its distributed checkpoint;
3. else all its torch files; else all its files of other formats. Numbered shards (``x-00001-of-00003``) must be
   complete. When several files or series remain, they are joined, and where two of them hold the same tensor
   name every name is prefixed with its file's stem. Of variants of one network in several types (``variants.py``)
   one is examined;
4. each directory below it that holds weights (a diffusion pipeline's ``unet/`` and ``vae/``, the ``data/`` of an
   MLflow model), joined in the same way, prefixed with the directory's path where names collide; the names of
   the directory itself are never prefixed.

No weight file passes in silence. Those that 1. to 3. did not choose are, in this order:

- left out with a reason (:attr:`Reader.left_out`): training state, known by its name (``optimizer.pt``,
  ``training_args.bin``, a distributed checkpoint in ``optimizer_0/`` ...), indexes of shards, files without tensors,
  and copies: files in another format that hold no tensor of another name or shape than the safetensors (or torch
  files) that were chosen, all of them in floats or in the same type as there. A file whose names are other ones
  (GGUF's, TensorFlow's) cannot be told to be a copy, and one that is quantised otherwise is none: both are examined.
  Variants among the files themselves, too;
- examined: any other file that can be read, joined as in 4.;
- named as not examined (:attr:`Reader.unexamined`), which makes the version undecided: files of formats that are
  not read, and damaged ones. The same goes for a directory below one with weights that cannot be opened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.manifest import TENSORFLOW_NAME, weight_files
from layerwatch.metrics.readers.distcp import DistributedCheckpoint, is_metadata
from layerwatch.metrics.readers.gguf import GgufFile
from layerwatch.metrics.readers.ggufvalues import MAGIC as GGUF_MAGIC
from layerwatch.metrics.readers.joined import ModelReader, Part
from layerwatch.metrics.readers.keras import KerasFile, is_keras
from layerwatch.metrics.readers.mapped import MappedFile
from layerwatch.metrics.readers.numpyfiles import NumpyFile, is_numpy
from layerwatch.metrics.readers.onnx import OnnxFile
from layerwatch.metrics.readers.onnxvalues import external_files
from layerwatch.metrics.readers.orbax import OrbaxDirectory
from layerwatch.metrics.readers.orbaxfiles import METADATA as ORBAX_METADATA
from layerwatch.metrics.readers.pytorch import TorchFile
from layerwatch.metrics.readers.safetensors import SafetensorsFile
from layerwatch.metrics.readers.shards import (
    DISTRIBUTED_METADATA,
    DISTRIBUTED_SUFFIX,
    INDEX_SUFFIX,
    model_name,
    read_index,
    require_shards,
    series,
)
from layerwatch.metrics.readers.variants import SAME_NETWORK, variants
from layerwatch.metrics.readers.ziparchive import ZIP_MAGIC
from layerwatch.metrics.tensors import CodeInPickle, Reader, UnexaminedFile, foreign_code_of

_HEAD_BYTES = 512
_LEGACY_TORCH_MAGIC = b"l\xfc\x9cF\xf9 j\xa8P\x19"
_LEGACY_TORCH_MAGIC_AS_TEXT = b"119547037146038801333356"
_SUPPORTED = (
    "supported are safetensors, torch checkpoints (.pt, .pth, .bin, .th, .pth.tar, .ckpt), TorchScript, directories of "
    "torch.distributed.checkpoint, GGUF, ONNX, Keras (.keras, .h5), NumPy (.npy, .npz) and directories of Orbax"
)
_TENSORFLOW = (
    "a part of a TensorFlow SavedModel or checkpoint, which is not read: what is needed for that is a part of TensorFlow "
    "itself; save the model as .keras, or export it as ONNX or safetensors"
)


@dataclass(frozen=True, slots=True)
class Format:
    """A format that can be read.

    Attributes:
        name: as :attr:`Reader.format` reports it.
        suffixes: file names that hold it.
        recognises: whether a file that begins with these 512 bytes is of the format.
        open: opens one file.
    """

    name: str
    suffixes: tuple[str, ...]
    recognises: Callable[[bytes], bool]
    open: Callable[[Path], Reader]


def _is_zip(head: bytes) -> bool:
    return head.startswith(ZIP_MAGIC)


def _is_torch(head: bytes) -> bool:
    # The magic number is the first pickled object, behind at most protocol and frame opcodes.
    start = head[:48]
    return _is_zip(head) or _LEGACY_TORCH_MAGIC in start or _LEGACY_TORCH_MAGIC_AS_TEXT in start


def _is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**40


def _is_gguf(head: bytes) -> bool:
    return head.startswith(GGUF_MAGIC)


def _is_onnx(head: bytes) -> bool:
    # There is no magic number: protobuf's field 1, the version of the format, and a field that may follow it.
    return head[:1] == b"\x08" and head[2:3] in _BEHIND_THE_VERSION and 1 <= head[1] <= 63


_BEHIND_THE_VERSION = tuple(bytes([tag]) for tag in (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42))
"""Tags of producer_name, producer_version, domain, model_version, doc_string, graph and opset_import."""

_TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".th", ".pth.tar", ".ckpt", ".jit", ".torchscript", ".ptl")

READERS = (
    Format("numpy", (".npz", ".npy"), is_numpy, NumpyFile),
    Format("keras", (".keras", ".h5", ".hdf5"), is_keras, KerasFile),
    # Behind the other two that are zip archives: any of those may be a torch checkpoint.
    Format("pytorch", _TORCH_SUFFIXES, _is_torch, TorchFile),
    Format("safetensors", (".safetensors",), _is_safetensors, SafetensorsFile),
    Format("gguf", (".gguf",), _is_gguf, GgufFile),
    Format("onnx", (".onnx",), _is_onnx, OnnxFile),
)
"""Every format of files that can be read. Adding one means adding a line."""

_ARCHIVES: dict[str, Callable[[Path], Reader]] = {".npz": NumpyFile, ".keras": KerasFile}

_READ_SUFFIXES = tuple(suffix for known in READERS for suffix in known.suffixes)

_SEEN = (
    (
        0,
        b"version https://git-lfs",
        "a Git LFS pointer; the weights themselves are fetched by `git lfs pull`",
    ),
    (257, b"ustar", "a tar archive (torch before 0.2 wrote such); load and save it with torch, or unpack it"),
    (0, b"\x1f\x8b", "gzip-compressed; unpack it"),
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed; unpack it"),
    (0, b"<!DOCTYPE", "an HTML page, as servers send in place of a file; download it again"),
    (0, b"<html", "an HTML page, as servers send in place of a file; download it again"),
    (0, b"\x80", "a pickle that torch.save did not write"),
)

# What trainers write beside a model.
_TRAINING_STATE = re.compile(
    r"(training_args|optimizer|optim|scheduler|lr_scheduler|scaler|rng_state|random_states)(_.*)?\.\w+"
)
_DOUBTFUL_SUFFIXES = (".bin", ".ckpt")
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_MAIN_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def open_model(path: Path) -> Reader:
    """Open a model file, an index of shards, or a directory (rules: see the module).

    Args:
        path: what the user named, or what a registry fetched.

    Returns:
        The open model; its names carry no ``module.`` or ``_orig_mod.`` prefix. Close it after use.

    Raises:
        UnreadableError: NOT_FOUND, EMPTY_FILE, UNKNOWN_FORMAT, MISSING_SHARD, or what opening a file raises.
    """
    if path.is_dir():
        return _open_directory(path)
    root = path.parent
    if path.name.lower().endswith(INDEX_SUFFIX):
        return _open_index(root, path)
    return _join(root, path, [_Piece(path, "", lambda: open_file(path))])


def open_file(path: Path) -> Reader:
    """Open one file by its content, with the names that the file has."""
    head = _head(path)
    if _is_distributed(path) or is_metadata(head):
        raise UnreadableError(
            UnreadableReason.UNKNOWN_FORMAT,
            path,
            "this is one file of a distributed checkpoint, which is read as a whole: name its directory",
        )
    if TENSORFLOW_NAME.fullmatch(path.name):
        raise UnreadableError(UnreadableReason.UNKNOWN_FORMAT, path, f"this is {_TENSORFLOW}; {_SUPPORTED}")
    for known in READERS:
        if known.recognises(head):
            # What begins as any zip archive does is known by its name, where that tells.
            named = _ARCHIVES.get(path.suffix.lower()) if known.open is TorchFile and _is_zip(head) else None
            return (named or known.open)(path)
    for offset, magic, sentence in _SEEN:
        if head.startswith(magic, offset):
            raise UnreadableError(UnreadableReason.UNKNOWN_FORMAT, path, f"this is {sentence}; {_SUPPORTED}")
    if path.name.lower().endswith(".safetensors"):
        return SafetensorsFile(path)
    if path.name.lower().endswith(".onnx"):
        return OnnxFile(path)
    raise UnreadableError(
        UnreadableReason.UNKNOWN_FORMAT,
        path,
        f"the file begins with {head[:12]!r}, which no known format does; {_SUPPORTED}",
    )


@dataclass(frozen=True, slots=True)
class _Piece:
    """A file or directory to be opened as a part of a model.

    Attributes:
        path, label: as in :class:`Part`.
        open: opens it.
        optional: whether the model is opened without it, and undecided, when it cannot be read.
        files: what is named when it is left out or cannot be read; empty for the shards of an index and for folders.
    """

    path: Path
    label: str
    open: Callable[[], Reader]
    optional: bool = False
    files: tuple[Path, ...] = ()


@dataclass(slots=True)
class _Beside:
    """Files of a model that are no part of what is examined, collected while it is opened."""

    root: Path
    left_out: list[tuple[str, str]] = field(default_factory=list)
    unexamined: list[UnexaminedFile] = field(default_factory=list)
    foreign_code: list[CodeInPickle] = field(default_factory=list)

    def leave_out(self, path: Path, reason: str) -> None:
        self.left_out.append((self._name(path), reason))

    def note(self, path: Path, error: UnreadableError) -> None:
        """Note that a file cannot be read; raises the error when another attempt may succeed."""
        if error.transient:
            raise error
        self.unexamined.append(UnexaminedFile(self._name(path), error.reason, _text(error.detail)))

    def _name(self, path: Path) -> str:
        return _text(path.relative_to(self.root).as_posix() if path != self.root else path.name)


def _text(name: str) -> str:
    # File names may hold bytes that are no UTF-8.
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _join(
    root: Path,
    path: Path,
    pieces: Sequence[_Piece],
    owners: dict[str, Path] | None = None,
    beside: _Beside | None = None,
) -> ModelReader:
    """Open the pieces; ``root`` is the directory that names of files are relative to."""
    beside = beside or _Beside(root)
    with ExitStack() as opened:
        parts: list[Part] = []
        files: dict[Path, tuple[Path, ...]] = {}
        empty: UnreadableError | None = None
        for piece in pieces:
            try:
                reader = piece.open()
            except UnreadableError as error:
                if error.reason is UnreadableReason.NO_TENSORS and owners is None:
                    empty = error
                    beside.leave_out(piece.path, _text(error.detail))
                elif piece.optional:
                    at_fault = Path(error.path)
                    for file in piece.files or (at_fault if at_fault.is_file() else piece.path,):
                        beside.note(file, error)
                else:
                    raise
                continue
            opened.callback(reader.close)
            parts.append(Part(piece.path, piece.label, reader))
            files[piece.path] = piece.files
        if empty is not None and not parts:
            raise empty
        for variant, examined in variants([part for part in parts if files[part.path]]):
            parts.remove(variant)
            beside.foreign_code += foreign_code_of(variant.reader)
            variant.reader.close()
            for file in files[variant.path]:
                beside.leave_out(file, _text(f"a variant of {examined.path.name}, {SAME_NETWORK}"))
        joined = ModelReader(path, parts, owners, beside.left_out, beside.unexamined, beside.foreign_code)
        opened.pop_all()
        return joined


def _open_index(root: Path, index: Path, available: Collection[Path] | None = None) -> ModelReader:
    owners = read_index(index)
    shards = sorted(set(owners.values()))
    require_shards(index, shards, available)
    return _join(root, index, [_Piece(shard, "", _opener(shard)) for shard in shards], owners)


def _opener(path: Path) -> Callable[[], Reader]:
    return lambda: open_file(path)


def _open_directory(root: Path) -> Reader:
    folders: dict[Path, list[Path]] = {}
    found = weight_files(root)
    # Like shards: read through the file that names them.
    external = {
        file
        for model in found
        if model.suffix.lower() == ".onnx"
        for file in external_files(model)
        if not _is_a_model(file)
    }
    checkpoints = {file.parent for file in found if file.name == ORBAX_METADATA}
    for file in found:
        if file in external or (not checkpoints.isdisjoint(file.parents) and not _is_named_as_weights(file)):
            continue
        folders.setdefault(file.parent, []).append(file)
    readable = {
        folder: files
        for folder, files in folders.items()
        if any(_may_be_read(file) and not _is_training_state(file, root) for file in files)
    }
    if readable and set(folders) == {root} and not checkpoints:
        return _open_folder(root, root, readable[root])
    if not readable and not checkpoints:
        if any(TENSORFLOW_NAME.fullmatch(file.name) for files in folders.values() for file in files):
            raise UnreadableError(
                UnreadableReason.UNKNOWN_FORMAT, root, f"the directory holds {_TENSORFLOW}; {_SUPPORTED}"
            )
        others = ", ".join(sorted({file.name for files in folders.values() for file in files})[:5])
        if others:
            raise UnreadableError(
                UnreadableReason.UNKNOWN_FORMAT, root, f"the directory holds only {others}; {_SUPPORTED}"
            )
        raise UnreadableError(
            UnreadableReason.NOT_FOUND, root, f"the directory holds no weight file; {_SUPPORTED}"
        )
    beside = _Beside(root)
    pieces = [
        _Piece(
            folder,
            ".".join(folder.relative_to(root).parts),
            _folder_opener(root, folder, files),
            optional=root in readable and folder != root,
        )
        for folder, files in sorted(readable.items(), key=lambda item: item[0] != root)
    ]
    for folder in sorted(checkpoints):
        if folder != root and _TRAINING_STATE.fullmatch(f"{folder.name}.orbax"):
            beside.leave_out(folder, "training state: not examined")
        else:
            label = ".".join(folder.relative_to(root).parts)
            pieces.append(_Piece(folder, label, _orbax_opener(folder), optional=bool(readable)))
    for folder, files in folders.items():
        if folder not in readable:
            pieces += _siblings(files, beside)
    return _join(root, root, pieces, beside=beside)


def _orbax_opener(folder: Path) -> Callable[[], Reader]:
    return lambda: OrbaxDirectory(folder)


def _folder_opener(root: Path, folder: Path, files: list[Path]) -> Callable[[], Reader]:
    return lambda: _open_folder(root, folder, files)


def _is_named_as_weights(file: Path) -> bool:
    """Whether a file inside a checkpoint of Orbax is called as none of its own files are."""
    return file.name.lower().endswith((*_READ_SUFFIXES, INDEX_SUFFIX, DISTRIBUTED_SUFFIX))


def _is_a_model(file: Path) -> bool:
    """Whether a file that an ONNX file takes its numbers from is weights of its own, which that must not hide."""
    if not file.name.lower().endswith(_READ_SUFFIXES):
        return False
    return not file.name.lower().endswith(_DOUBTFUL_SUFFIXES) or _is_torch(_head(file))


def _may_be_read(file: Path) -> bool:
    return file.name.lower().endswith((*_READ_SUFFIXES, INDEX_SUFFIX)) or _is_distributed(file)


def _is_distributed(file: Path) -> bool:
    """Whether a file is a part of a distributed checkpoint, by its name."""
    return file.name == DISTRIBUTED_METADATA or file.name.lower().endswith(DISTRIBUTED_SUFFIX)


def _is_training_state(file: Path, root: Path) -> bool:
    if not _is_distributed(file):
        return _TRAINING_STATE.fullmatch(file.name) is not None
    # Its files have the same names whatever is in them: the directory tells.
    return (
        file.parent != root and _TRAINING_STATE.fullmatch(file.parent.name + DISTRIBUTED_SUFFIX) is not None
    )


def _open_folder(root: Path, folder: Path, files: list[Path]) -> Reader:
    safetensors = [file for file in files if file.name.lower().endswith(".safetensors")]
    index = _index_of(
        folder, [file for file in files if file.name.lower().endswith(f".safetensors{INDEX_SUFFIX}")]
    )
    if index is None and not safetensors:
        index = _index_of(folder, [file for file in files if file.name.lower().endswith(INDEX_SUFFIX)])
    if index is not None:
        chosen = {index, *read_index(index).values()}
        main: Reader = _open_index(root, index, files)
    elif not safetensors and (distributed := [file for file in files if _is_distributed(file)]):
        chosen = set(distributed)
        main = _open_distributed(root, folder)
    else:
        models = series(safetensors or _other_files(root, files))
        chosen = {file for members in models for file in members}
        main = _open_all(root, folder, models)
    with ExitStack() as opened:
        opened.callback(main.close)
        beside = _Beside(root)
        pieces = _siblings([file for file in files if file not in chosen], beside, main)
        if not (pieces or beside.left_out or beside.unexamined):
            opened.pop_all()
            return main
        joined = _join(root, folder, [_Piece(folder, "", lambda: main), *pieces], beside=beside)
        opened.pop_all()
        return joined


def _siblings(files: Iterable[Path], beside: _Beside, main: Reader | None = None) -> list[_Piece]:
    """Sort the weight files that were not chosen: noted in ``beside``, or returned as parts to be tried."""
    candidates = []
    distributed: dict[Path, list[Path]] = {}
    for file in files:
        if _is_training_state(file, beside.root):
            beside.leave_out(file, "training state: not examined")
        elif file.name.lower().endswith(INDEX_SUFFIX):
            beside.leave_out(file, "index of shards: holds no weights")
        elif _is_distributed(file):
            distributed.setdefault(file.parent, []).append(file)
        else:
            candidates.append(file)
    pieces = [
        _Piece(
            folder, folder.name, _distributed_opener(beside.root, folder), optional=True, files=tuple(members)
        )
        for folder, members in distributed.items()
    ]
    try:
        groups = series(candidates)
    except UnreadableError as error:
        for file in candidates:
            beside.note(file, error)
        groups = []
    for members, label in zip(groups, _labels(groups), strict=True):
        opener = _series_opener(beside.root, members)
        pieces.append(_Piece(members[0], label, opener, optional=True, files=members))
    if main is None:
        return pieces
    others = []
    for piece in pieces:
        if _is_copy(piece.open, main, beside):
            for file in piece.files:
                beside.leave_out(file, f"the same tensors as the {main.format} files, {SAME_NETWORK}")
        else:
            others.append(piece)
    return others


def _is_copy(open_: Callable[[], Reader], main: Reader, beside: _Beside) -> bool:
    """Whether files hold nothing that the chosen ones lack, as far as names, shapes and types tell.

    Code that a copy asks for is noted: nobody opens it again, and somebody may load it.
    """
    if main.format not in ("safetensors", "pytorch"):
        return False
    chosen = {info.name: info for info in main.tensors()}
    try:
        reader = open_()
    except UnreadableError:
        # Told when it is opened as a part of the model.
        return False
    try:
        is_copy = not reader.unexamined and all(
            info.name in chosen
            and info.shape == chosen[info.name].shape
            and (info.dtype in _FLOATS or info.dtype == chosen[info.name].dtype)
            for info in reader.tensors()
        )
        if is_copy:
            beside.foreign_code += foreign_code_of(reader)
        return is_copy
    finally:
        reader.close()


def _open_all(root: Path, folder: Path, models: Sequence[tuple[Path, ...]]) -> Reader:
    if len(models) == 1:
        return _open_series(root, models[0])
    return _join(
        root,
        folder,
        [
            _Piece(members[0], label, _series_opener(root, members), files=members)
            for members, label in zip(models, _labels(models), strict=True)
        ],
    )


def _labels(models: Sequence[tuple[Path, ...]]) -> list[str]:
    labels = [model_name(members[0]) for members in models]
    return labels if len(set(labels)) == len(labels) else [members[0].name for members in models]


def _index_of(folder: Path, indexes: list[Path]) -> Path | None:
    main = [index for index in indexes if index.name in _MAIN_INDEXES]
    chosen = main if len(indexes) > 1 else indexes
    if indexes and len(chosen) != 1:
        names = ", ".join(index.name for index in indexes)
        raise UnreadableError(
            UnreadableReason.UNKNOWN_FORMAT,
            folder,
            f"the directory holds several indexes ({names}); name one",
        )
    return chosen[0] if chosen else None


def _other_files(root: Path, files: list[Path]) -> list[Path]:
    """The torch files of a directory without safetensors, or else its files of other formats."""
    candidates = [
        file
        for file in files
        if file.name.lower().endswith(_READ_SUFFIXES) and not _is_training_state(file, root)
    ]
    torch = [file for file in candidates if file.name.lower().endswith(_TORCH_SUFFIXES)]
    # .bin and .ckpt are also used for vocabularies, other frameworks' files and the like.
    certain = [
        file for file in torch if not file.name.lower().endswith(_DOUBTFUL_SUFFIXES) or _is_torch(_head(file))
    ]
    others = [file for file in candidates if file not in torch]
    return certain or others or torch


def _open_distributed(root: Path, folder: Path) -> Reader:
    return _join(root, folder, [_Piece(folder, "", lambda: DistributedCheckpoint(folder))])


def _distributed_opener(root: Path, folder: Path) -> Callable[[], Reader]:
    return lambda: _open_distributed(root, folder)


def _open_series(root: Path, members: tuple[Path, ...]) -> Reader:
    return _join(root, members[0], [_Piece(member, "", _opener(member)) for member in members])


def _series_opener(root: Path, members: tuple[Path, ...]) -> Callable[[], Reader]:
    return lambda: _open_series(root, members)


def _head(path: Path) -> bytes:
    file = MappedFile(path)
    try:
        return file.map[:_HEAD_BYTES]
    finally:
        file.close()
