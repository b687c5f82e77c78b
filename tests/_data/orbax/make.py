"""Writes the files beside it: checkpoints as Orbax writes them, and what Orbax restores from them.

    pip install orbax-checkpoint==0.12.8 jax==0.10.2
    python tests/_data/orbax/make.py

``NAME.tar.gz`` holds one checkpoint directory: ``ocdbt`` and ``zarr3`` in one database, ``zarr`` with a directory for
each array. ``expected.npz`` holds the arrays by their names, as float32.
"""

from __future__ import annotations

import tarfile
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent


def tree() -> dict[str, Any]:
    jnp = import_module("jax.numpy")
    random = np.random.default_rng(11)

    def drawn(*shape: int, dtype: str = "float32") -> Any:
        return jnp.asarray(random.standard_normal(shape) * 0.1, dtype)

    dense = {"kernel": drawn(24, 16), "bias": drawn(16)}
    return {
        "params": {
            "dense": dense,
            "conv": {"kernel": drawn(3, 2, 4, 8)},
            "blocks": [drawn(8, 8, dtype="bfloat16"), drawn(8, 8, dtype="float16")],
            "attention": {"kernel": drawn(16, 2, 8)},
            "zeros": {"scale": jnp.zeros(16)},
            "nothing": {},
        },
        "opt_state": [{"mu": {"dense": dense}}],
        "step": jnp.asarray(7),
    }


def main() -> None:
    orbax = import_module("orbax.checkpoint")
    with tempfile.TemporaryDirectory() as folder:
        for name, options in (
            ("ocdbt", {"use_ocdbt": True}),
            ("zarr", {"use_ocdbt": False}),
            ("zarr3", {"use_ocdbt": True, "use_zarr3": True}),
        ):
            place = Path(folder, name)
            orbax.PyTreeCheckpointer(**options).save(place, tree())
            with tarfile.open(HERE / f"{name}.tar.gz", "w:gz") as archive:
                archive.add(place, name)
        restored = orbax.PyTreeCheckpointer().restore(Path(folder, "ocdbt"))
    params = restored["params"]
    expected = {
        "params.dense.kernel": params["dense"]["kernel"],
        "params.dense.bias": params["dense"]["bias"],
        "params.conv.kernel": params["conv"]["kernel"],
        "params.blocks.0": params["blocks"][0],
        "params.blocks.1": params["blocks"][1],
        "params.attention.kernel": params["attention"]["kernel"],
        "params.zeros.scale": params["zeros"]["scale"],
        "step": restored["step"],
    }
    arrays: dict[str, Any] = {key: np.asarray(value, np.float32) for key, value in expected.items()}
    np.savez_compressed(HERE / "expected.npz", **arrays)


if __name__ == "__main__":
    main()
