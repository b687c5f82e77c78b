"""Writing and reading a safetensors file, as an exporter and a serving system do.

Format: https://huggingface.co/docs/safetensors/index#format . This is deliberately not the reader that the
monitor uses: the accuracy shown beside a verdict must not rest on the code that gave the verdict.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "I64": np.dtype("<i8"),
    "I8": np.dtype("i1"),
}
_NAMES = {dtype: name for name, dtype in _TYPES.items()}
_ALIGNMENT = 8


def write_safetensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write float32, int64 and int8 tensors; equal tensors give equal bytes.

    Raises:
        KeyError: a tensor of another type.
        OSError: the file cannot be written.
    """
    # Widest types first keeps every tensor aligned to its item size, as the reference writer does.
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        values = tensors[name]
        begin, end = end, end + values.nbytes
        header[name] = {
            "dtype": _NAMES[values.dtype],
            "shape": list(values.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in names:
            file.write(np.ascontiguousarray(tensors[name]).tobytes())


def read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """All tensors of a file that :func:`write_safetensors` wrote."""
    content = path.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    tensors: dict[str, NDArray[Any]] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        first, last = entry["data_offsets"]
        values = np.frombuffer(content[begin + first : begin + last], dtype=_TYPES[entry["dtype"]])
        tensors[name] = values.reshape(entry["shape"])
    return tensors
