"""Fuzzing of the readers: what is fuzzed, how inputs are made, and what counts as a failure.

A reader may do two things with any bytes: read them, or raise an ``UnreadableError``. Everything else is a failure:
another exception, more than :data:`SLOW_SECONDS` for one input, more than :data:`MEMORY_BYTES` beyond what the
interpreter and the imported libraries take.

The valid files that are mutated are written by ``fuzzseeds.py``, which needs torch; nothing here does, so that the
memory that is measured is the readers' own.
"""

from __future__ import annotations

import hashlib
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from layerwatch.metrics.errors import UnreadableError
from layerwatch.metrics.readers.checkpoint import find_tensors
from layerwatch.metrics.readers.dangerousglobals import ForeignCode
from layerwatch.metrics.readers.distcp import DistributedCheckpoint
from layerwatch.metrics.readers.gguf import GgufFile
from layerwatch.metrics.readers.keras import KerasFile
from layerwatch.metrics.readers.mapped import MappedFile
from layerwatch.metrics.readers.numpyfiles import NumpyFile
from layerwatch.metrics.readers.onnx import OnnxFile
from layerwatch.metrics.readers.picklestream import PickleStream
from layerwatch.metrics.readers.pytorch import TorchFile
from layerwatch.metrics.readers.safetensors import SafetensorsFile
from layerwatch.metrics.readers.shards import read_index
from layerwatch.metrics.readers.tensorunpickler import unpickle
from layerwatch.metrics.readers.ziparchive import ZipArchive
from layerwatch.metrics.tensors import Reader

SLOW_SECONDS = 2.0
MEMORY_BYTES = 256 * 2**20

_HANG_SECONDS = 30.0
_TOUCHED_BYTES = 2**20
"""Tensors up to this size are read whole; of larger ones, which hostile files describe in plenty, one element."""


@dataclass(frozen=True, slots=True)
class FuzzTarget:
    """One parser.

    Attributes:
        name: how it is called; also the folder of its valid files.
        file: what the input is called in the scratch folder.
        examine: reads everything the file holds; the folder may hold more files, which are not mutated.
    """

    name: str
    file: str
    examine: Callable[[Path], None]


def read_all(open_file: Callable[[Path], Reader]) -> Callable[[Path], None]:
    """List and load everything, and compare what is loaded with what was listed."""

    def examine(path: Path) -> None:
        reader = open_file(path)
        try:
            for info in reader.tensors():
                try:
                    loaded = reader.load(info.name)
                except UnreadableError:
                    continue
                assert loaded.shape == info.shape, info
                assert not loaded.flags.writeable, info
                if loaded.nbytes <= _TOUCHED_BYTES:
                    loaded.tobytes()
                elif loaded.size:
                    loaded.flat[-1]
            assert all(isinstance(name, str) for name, _ in reader.left_out)
            assert all(one.detail for one in reader.unexamined)
        finally:
            reader.close()

    return examine


def _pickle(path: Path) -> None:
    stream = PickleStream(path.read_bytes(), path)
    find_tensors(unpickle(stream, ForeignCode()).root, path)


def _zip(path: Path) -> None:
    file = MappedFile(path)
    try:
        archive = ZipArchive(file)
        for name in archive.sizes:
            try:
                archive.beginning(name, 100)
                archive.read(name)
            except UnreadableError:
                continue
    finally:
        file.close()


def _index(path: Path) -> None:
    read_index(path)


TARGETS = (
    FuzzTarget("safetensors", "m.safetensors", read_all(SafetensorsFile)),
    FuzzTarget("index", "m.safetensors.index.json", _index),
    FuzzTarget("pickle", "data.pkl", _pickle),
    FuzzTarget("torch-zip", "m.pt", read_all(TorchFile)),
    FuzzTarget("torch-legacy", "m.pth", read_all(TorchFile)),
    FuzzTarget("torchscript", "m.jit", read_all(TorchFile)),
    FuzzTarget("distcp", ".metadata", read_all(DistributedCheckpoint)),
    FuzzTarget("zip", "m.zip", _zip),
    FuzzTarget("npy", "m.npy", read_all(NumpyFile)),
    FuzzTarget("npz", "m.npz", read_all(NumpyFile)),
    FuzzTarget("keras", "m.keras", read_all(KerasFile)),
    FuzzTarget("hdf5", "m.h5", read_all(KerasFile)),
    FuzzTarget("gguf", "m.gguf", read_all(GgufFile)),
    FuzzTarget("onnx", "m.onnx", read_all(OnnxFile)),
)
"""Every parser of ours, and libhdf5 as it is used here."""


TOKENS = (
    *(b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"GGUF", b"\x93NUMPY", b"\x89HDF\r\n\x1a\n"),
    *(b"{", b"}", b"[", b"]", b'"', b":", b",", b"(", b")", b"'", b"..", b"/", b"\\", b"\0", b"\n", b" "),
    *(
        b"dtype",
        b"shape",
        b"data_offsets",
        b"__metadata__",
        b"descr",
        b"'|O'",
        b"'<f8'",
        b"True",
        b"-1",
        b"1e9",
    ),
    *(b"9" * 19, b"weight_map", b"state_dict", b"model", b"_modules", b"_parameters", b"storage"),
    *(
        b"\x80\x02",
        b".",
        b"(",
        b"t",
        b"R",
        b"b",
        b"u",
        b"s",
        b"a",
        b"e",
        b"0",
        b"1",
        b"2",
        b"Q",
        b"\x85",
        b"\x93",
    ),
    *(b"cos\nsystem\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter\n"),
    *(b"ccollections\nOrderedDict\n", b"ctorch\nFloatStorage\n", b"h\0", b"q\0", b"j\xff\xff\xff\x7f"),
)
"""Bytes that mean something to one of the parsers."""

NUMBERS = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
"""Numbers at the edges of types."""


class Mutator:
    """Makes inputs of valid ones, the same ones for the same seed.

    Args:
        valid: at least one valid input.
        seed: of the random choices.
    """

    def __init__(self, valid: Sequence[bytes], seed: int) -> None:
        self._valid = tuple(valid)
        self._random = random.Random(seed)

    def inputs(self) -> Iterator[bytes]:
        """Mutated inputs without end; the valid ones themselves come first."""
        yield from self._valid
        while True:
            content = bytearray(self._random.choice(self._valid))
            for _ in range(self._random.choice((1, 1, 1, 2, 3, 5, 9))):
                self._mutate(content)
            yield bytes(content)

    def _mutate(self, content: bytearray) -> None:
        choose = self._random
        at = choose.randrange(len(content) + 1)
        length = choose.choice((1, 1, 2, 4, 8, 16, 64))
        match choose.randrange(9):
            case 0 if at < len(content):
                content[at] ^= 1 << choose.randrange(8)
            case 1:
                content[at : at + 1] = bytes([choose.randrange(256)])
            case 2:
                width = choose.choice((1, 2, 4, 8))
                number = choose.choice(NUMBERS) % 256**width
                content[at : at + width] = number.to_bytes(width, choose.choice(("little", "big")))
            case 3:
                del content[at : at + length]
            case 4:
                content[at:at] = content[at : at + length] * choose.choice((1, 1, 2, 100))
            case 5:
                content[at : at + choose.choice((0, length))] = choose.choice(TOKENS)
            case 6:
                other = choose.choice(self._valid)
                begin = choose.randrange(len(other) + 1)
                content[at : at + length] = other[begin : begin + length]
            case 7:
                begin = choose.randrange(len(content) + 1)
                content[at : at + length] = content[begin : begin + length]
            case 8 if choose.randrange(4) == 0:
                del content[at:]
            case _:
                content[at:at] = choose.randbytes(choose.choice((1, 4, 16)))


@dataclass(frozen=True, slots=True)
class FuzzFailure:
    """One input that is not dealt with as it must be.

    Attributes:
        kind: ``crash``, ``slow`` or ``memory``.
        detail: the exception, or the number measured.
        content: the input.
    """

    kind: str
    detail: str
    content: bytes

    @property
    def name(self) -> str:
        """A file name for the input."""
        return f"{self.kind}-{hashlib.sha256(self.content).hexdigest()[:12]}"


@dataclass(slots=True)
class FuzzResult:
    """What a campaign against one target saw.

    Attributes:
        executions: inputs that were examined.
        outcomes: how many were read, and how many were refused for which reason.
        slowest: seconds of the slowest input.
        peak: most bytes of memory beyond those at the beginning.
        failures: inputs that failed.
    """

    executions: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    peak: int = 0
    failures: list[FuzzFailure] = field(default_factory=list)


class Campaign:
    """Runs inputs against one target and keeps the account.

    Args:
        target: the parser.
        folder: where inputs are written, best in memory; the other files of the format are there already.
        slow_seconds, memory_bytes: limits for one input.
    """

    def __init__(
        self,
        target: FuzzTarget,
        folder: Path,
        slow_seconds: float = SLOW_SECONDS,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        _forget_peak()
        self.result = FuzzResult()
        self._target = target
        self._path = folder / target.file
        self._slow = slow_seconds
        self._memory = memory_bytes
        self._base = _peak_memory()
        self._too_much = False

    def run(self, content: bytes) -> None:
        """Examine one input; failures are noted, not raised."""
        result = self.result
        # Mapped bytes must not change under a view that is still held somewhere: every input is a new file.
        self._path.unlink(missing_ok=True)
        self._path.write_bytes(content)
        began = time.perf_counter()
        try:
            with _interrupted_after(_HANG_SECONDS):
                self._target.examine(self._path)
            outcome = "read"
        except UnreadableError as error:
            outcome = error.reason.value
        except HangError:
            outcome = "hang"
        except Exception as error:  # noqa: BLE001 - any other exception is what is looked for
            outcome = "crash"
            result.failures.append(FuzzFailure("crash", f"{type(error).__name__}: {error}", content))
        took = time.perf_counter() - began
        result.executions += 1
        result.outcomes[outcome] += 1
        result.slowest = max(result.slowest, took)
        if took > self._slow:
            result.failures.append(FuzzFailure("slow", f"{took:.1f} s", content))
        result.peak = max(result.peak, _peak_memory() - self._base)
        if result.peak > self._memory and not self._too_much:
            # The peak stays where it is: the first input beyond the limit is the one to look at.
            self._too_much = True
            result.failures.append(FuzzFailure("memory", f"{result.peak >> 20} MiB", content))


class HangError(BaseException):
    """An input takes so long that the campaign could not go on. No Exception: nothing may swallow it."""


@contextmanager
def _interrupted_after(seconds: float) -> Iterator[None]:
    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _forget_peak() -> None:
    """Let the peak begin at what is resident now, where the system allows it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory() -> int:
    """Most resident bytes of this process so far; 0 where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_bytes()
    except OSError:
        return 0
    begin = status.find(b"VmHWM:")
    return 0 if begin < 0 else int(status[begin + 6 : status.index(b"kB", begin)]) * 1024


def valid_inputs(corpus: Path, target: FuzzTarget) -> list[bytes]:
    """The valid files of a target, smallest first, so that most mutations hit what is not tensor data."""
    contents = [path.read_bytes() for path in sorted((corpus / target.name).iterdir())]
    return sorted(contents, key=len)


def named_targets(names: Sequence[str]) -> list[FuzzTarget]:
    """The targets of these names, all of them for no name; KeyError for unknown ones."""
    known: Mapping[str, FuzzTarget] = {target.name: target for target in TARGETS}
    return [known[name] for name in names] if names else list(TARGETS)
