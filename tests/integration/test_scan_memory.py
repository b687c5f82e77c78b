"""Peak memory of a scan: what the worker needs anyway, plus a few times the largest layer, however many there are.

Two layers are under way at a time here, on two threads; together they stay within the limit for one.

Measured is ``VmHWM`` of the worker: the most it ever had resident, pages of the mapped weight file included.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from layerwatch.config.scan import ScanSettings
from layerwatch.daemon.scan.executor import LocalExecutor, ScanListener
from layerwatch.daemon.scan.messages import ScanRequest
from layerwatch.metrics.measured import MeasuredLayer
from layerwatch.metrics.readers.detect import open_model
from layerwatch_testing.bigmodels import BigTensor, write_big
from layerwatch_testing.processes import MIB, children, peak_resident_bytes

LIMIT = 6
"""Times the largest layer in float32 that a scan may need beyond the base."""

THREADS = 2

SIDE = 2304
"""A square layer of this side has more than 4 million elements, and a Gram matrix of its own size."""


def peak_of_scan(path: Path, layers: int, baseline: Path | None = None) -> int:
    """Peak resident bytes of a new worker that measures every layer of a file."""
    executor = LocalExecutor(ScanSettings(niceness=0), threads=THREADS)
    before = set(children())
    measured: list[str] = []

    def on_layer(one: MeasuredLayer) -> None:
        assert one.measurement is not None
        assert one.measurement.numbers is not None
        measured.append(one.layer.name)

    try:
        request = ScanRequest(str(path), str(baseline) if baseline else None)
        executor.scan(request, ScanListener(lambda digest: False, on_layer))
        (pid,) = set(children()) - before
        assert len(measured) == layers
        return peak_resident_bytes(pid)
    finally:
        executor.close()


def model(folder: Path, layers: int, rows: int, columns: int) -> Path:
    """A file of layers of one shape, each with numbers of its own: equal ones would be measured once."""
    tensors = [BigTensor(f"layer{seed}.weight", (rows, columns), "F32", seed) for seed in range(layers)]
    return write_big(folder / f"{layers}x{rows}x{columns}.safetensors", tensors)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Peak of a scan of one tiny layer."""
    return peak_of_scan(model(tmp_path_factory.mktemp("tiny"), 1, 8, 8), 1)


def test_the_peak_does_not_grow_with_the_number_of_layers(base: int, tmp_path: Path) -> None:
    rows, columns = 8192, 512
    layer = 4 * rows * columns
    limit = base + LIMIT * layer

    assert layer == 16 * MIB
    assert peak_of_scan(model(tmp_path, 2, rows, columns), 2) <= limit
    assert peak_of_scan(model(tmp_path, 40, rows, columns), 40) <= limit


@pytest.mark.slow
def test_two_hundred_layers_need_as_much_memory_as_ten(tmp_path: Path) -> None:
    ten = peak_of_scan(model(tmp_path, 10, 512, 512), 10)

    two_hundred = peak_of_scan(model(tmp_path, 200, 512, 512), 200)

    # The layers that are more hold 190 MiB, so keeping a seventh of each would show.
    assert two_hundred == pytest.approx(ten, rel=0.1)


def test_square_layers_where_the_gram_matrix_is_as_large_as_the_layer_stay_within_the_limit(
    base: int, tmp_path: Path
) -> None:
    layer = 4 * SIDE * SIDE
    two = peak_of_scan(model(tmp_path, 2, SIDE, SIDE), 2)

    four = peak_of_scan(model(tmp_path, 4, SIDE, SIDE), 4)

    assert two <= base + LIMIT * layer
    assert four <= two + layer // 2


def test_comparing_with_a_baseline_file_stays_within_the_limit(base: int, tmp_path: Path) -> None:
    path = model(tmp_path, 2, SIDE, SIDE)

    assert peak_of_scan(path, 2, baseline=path) <= base + LIMIT * 4 * SIDE * SIDE


def test_what_was_read_before_its_memory_was_given_back_can_still_be_read(tmp_path: Path) -> None:
    reader = open_model(model(tmp_path, 2, 64, 64))
    values = reader.load("layer0.weight")
    before = values.copy()

    reader.release()

    np.testing.assert_array_equal(values, before)
    np.testing.assert_array_equal(reader.load("layer0.weight"), before)
    reader.close()
    np.testing.assert_array_equal(values, before)
