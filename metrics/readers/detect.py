"""From a path to an open model: which format it is, and which files belong together.

Formats are told by content first (:data:`READERS`), by name only where content says nothing.

A directory is one model, made of, in this order:

1. its ``*.safetensors.index.json``; else its ``*.bin.index.json`` when there is no ``*.safetensors`` file;
2. all its ``*.safetensors`` files; 3. all its torch files. Numbered shards (``x-00001-of-00003``) must be
   complete. When several files or series remain, they are joined, and where two of them hold the same tensor
   name every name is prefixed with its file's stem;
4. each directory below it that holds weights (a diffusion pipeline's ``unet/`` and ``vae/``, the ``data/`` of an
   MLflow model), joined in the same way, prefixed with the directory's path where names collide; the names of
   the directory itself are never prefixed.

No weight file passes in silence. Those that 1. to 3. did not choose are, in this order:

- left out with a reason (:attr:`Reader.left_out`): training state, known by its name (``optimizer.pt``,
  ``training_args.bin`` ...), indexes of shards, torch files without tensors, and torch files beside safetensors
  that hold no tensor of another name or shape than those;
- examined: any other safetensors or torch file, joined as in 4.;
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
from layerwatch.metrics.manifest import weight_files
from layerwatch.metrics.readers.joined import ModelReader, Part
from layerwatch.metrics.readers.mapped import MappedFile
from layerwatch.metrics.readers.pytorch import ZIP_MAGIC, TorchFile
from layerwatch.metrics.readers.safetensors import SafetensorsFile
from layerwatch.metrics.readers.shards import (
    INDEX_SUFFIX,
    read_index,
    require_shards,
    series,
)
from layerwatch.metrics.tensors import Reader, UnexaminedFile

_HEAD_BYTES = 512
_LEGACY_TORCH_MAGIC = b"l\xfc\x9cF\xf9 j\xa8P\x19"
_LEGACY_TORCH_MAGIC_AS_TEXT = b"119547037146038801333356"
_SUPPORTED = "supported are safetensors and torch checkpoints (.pt, .pth, .bin, .th, .pth.tar, .ckpt)"


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


def _is_torch(head: bytes) -> bool:
    # The magic number is the first pickled object, behind at most protocol and frame opcodes.
    start = head[:48]
    return head.startswith(ZIP_MAGIC) or _LEGACY_TORCH_MAGIC in start or _LEGACY_TORCH_MAGIC_AS_TEXT in start


def _is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**40


READERS = (
    Format("pytorch", (".pt", ".pth", ".bin", ".th", ".pth.tar", ".ckpt"), _is_torch, TorchFile),
    Format("safetensors", (".safetensors",), _is_safetensors, SafetensorsFile),
)
"""Every format that can be read. Adding one means adding a line."""

_SEEN = (
    (
        0,
        b"version https://git-lfs",
        "a Git LFS pointer; the weights themselves are fetched by `git lfs pull`",
    ),
    (0, b"GGUF", "a GGUF file, which is not read"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 (Keras) file, which is not read"),
    (0, b"\x93NUMPY", "a numpy array, which is not read"),
    (257, b"ustar", "a tar archive (torch before 0.2 wrote such); load and save it with torch, or unpack it"),
    (0, b"\x1f\x8b", "gzip-compressed; unpack it"),
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed; unpack it"),
    (0, b"<!DOCTYPE", "an HTML page, as servers send in place of a file; download it again"),
    (0, b"<html", "an HTML page, as servers send in place of a file; download it again"),
    (0, b"\x80", "a pickle that torch.save did not write"),
)

_SEEN_BY_NAME = {".onnx": "an ONNX file, which is not read"}

# What trainers write beside a model.
_TRAINING_STATE = re.compile(
    r"(training_args|optimizer|optim|scheduler|lr_scheduler|scaler|rng_state|random_states)(_.*)?\.\w+"
)
_DOUBTFUL_SUFFIXES = (".bin", ".ckpt")
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
    if path.name.endswith(INDEX_SUFFIX):
        return _open_index(root, path)
    return _join(root, path, [_Piece(path, "", lambda: open_file(path))])


def open_file(path: Path) -> Reader:
    """Open one file by its content, with the names that the file has."""
    head = _head(path)
    for known in READERS:
        if known.recognises(head):
            return known.open(path)
    for offset, magic, sentence in _SEEN:
        if head.startswith(magic, offset):
            raise UnreadableError(UnreadableReason.UNKNOWN_FORMAT, path, f"this is {sentence}; {_SUPPORTED}")
    if path.name.endswith(".safetensors"):
        return SafetensorsFile(path)
    if path.suffix in _SEEN_BY_NAME:
        raise UnreadableError(
            UnreadableReason.UNKNOWN_FORMAT, path, f"this is {_SEEN_BY_NAME[path.suffix]}; {_SUPPORTED}"
        )
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
        files: the files of an optional series, all of which are named then; empty for anything else.
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
        parts = []
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
        if empty is not None and not parts:
            raise empty
        joined = ModelReader(path, parts, owners, beside.left_out, beside.unexamined)
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
    for file in weight_files(root):
        folders.setdefault(file.parent, []).append(file)
    readable = {folder: files for folder, files in folders.items() if any(map(_may_be_read, files))}
    if readable and set(folders) == {root}:
        return _open_folder(root, root, readable[root])
    if not readable:
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
    for folder, files in folders.items():
        if folder not in readable:
            pieces += _siblings(files, beside)
    return _join(root, root, pieces, beside=beside)


def _folder_opener(root: Path, folder: Path, files: list[Path]) -> Callable[[], Reader]:
    return lambda: _open_folder(root, folder, files)


def _may_be_read(file: Path) -> bool:
    suffixes = tuple(suffix for known in READERS for suffix in known.suffixes)
    return file.name.endswith((*suffixes, INDEX_SUFFIX)) and not _TRAINING_STATE.fullmatch(file.name)


def _open_folder(root: Path, folder: Path, files: list[Path]) -> Reader:
    safetensors = [file for file in files if file.name.endswith(".safetensors")]
    index = _index_of(folder, [file for file in files if file.name.endswith(f".safetensors{INDEX_SUFFIX}")])
    if index is None and not safetensors:
        index = _index_of(folder, [file for file in files if file.name.endswith(INDEX_SUFFIX)])
    if index is not None:
        chosen = {index, *read_index(index).values()}
        main: Reader = _open_index(root, index, files)
    else:
        models = series(safetensors or _torch_files(files))
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
    for file in files:
        if _TRAINING_STATE.fullmatch(file.name):
            beside.leave_out(file, "training state: not examined")
        elif file.name.endswith(INDEX_SUFFIX):
            beside.leave_out(file, "index of shards: holds no weights")
        else:
            candidates.append(file)
    try:
        groups = series(candidates)
    except UnreadableError as error:
        for file in candidates:
            beside.note(file, error)
        return []
    labels = _labels(groups)
    pieces = []
    for members, label in zip(groups, labels, strict=True):
        if main is not None and _is_copy(members, main):
            for file in members:
                beside.leave_out(file, "the same tensors as the safetensors files, by name and shape")
            continue
        opener = _series_opener(beside.root, members)
        pieces.append(_Piece(members[0], label, opener, optional=True, files=members))
    return pieces


def _is_copy(members: tuple[Path, ...], main: Reader) -> bool:
    """Whether torch files hold nothing that the safetensors lack, as far as names and shapes tell."""
    if main.format != "safetensors":
        return False
    shapes = {info.name: info.shape for info in main.tensors()}
    try:
        reader = _open_series(members[0].parent, members)
    except UnreadableError:
        # Told when it is opened as a part of the model.
        return False
    try:
        return reader.format == "pytorch" and all(
            shapes.get(info.name) == info.shape for info in reader.tensors()
        )
    finally:
        reader.close()


def _open_all(root: Path, folder: Path, models: Sequence[tuple[Path, ...]]) -> Reader:
    if len(models) == 1:
        return _open_series(root, models[0])
    return _join(
        root,
        folder,
        [
            _Piece(members[0], label, _series_opener(root, members))
            for members, label in zip(models, _labels(models), strict=True)
        ],
    )


def _labels(models: Sequence[tuple[Path, ...]]) -> list[str]:
    labels = [_label(members) for members in models]
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


def _torch_files(files: list[Path]) -> list[Path]:
    candidates = [file for file in files if _may_be_read(file) and not file.name.endswith(INDEX_SUFFIX)]
    # .bin and .ckpt are also used for vocabularies, other frameworks' files and the like.
    torch = [f for f in candidates if not f.name.endswith(_DOUBTFUL_SUFFIXES) or _is_torch(_head(f))]
    return torch or candidates


def _open_series(root: Path, members: tuple[Path, ...]) -> Reader:
    return _join(root, members[0], [_Piece(member, "", _opener(member)) for member in members])


def _series_opener(root: Path, members: tuple[Path, ...]) -> Callable[[], Reader]:
    return lambda: _open_series(root, members)


def _label(members: tuple[Path, ...]) -> str:
    stem = members[0].name.removesuffix(".tar").rpartition(".")[0]
    return re.sub(r"-\d{5,6}-of-\d{5,6}$", "", stem, flags=re.ASCII)


def _head(path: Path) -> bytes:
    file = MappedFile(path)
    try:
        return file.map[:_HEAD_BYTES]
    finally:
        file.close()
