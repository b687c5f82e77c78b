"""Peak memory of a scan: what the worker needs anyway, plus a few times the largest layer, however many there are.

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
from layerwatch_testing.models import write_safetensors
from layerwatch_testing.processes import MIB, children, peak_resident_bytes

LIMIT = 6
"""Times the largest layer in float32 that a scan may need beyond the base."""


def peak_of_scan(path: Path, layers: int, baseline: Path | None = None) -> int:
    """Peak resident bytes of a new worker that measures every layer of a file."""
    executor = LocalExecutor(ScanSettings(niceness=0), threads=2)
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
    """A file of equal layers of random numbers."""
    values = np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32)
    state = {f"layer{number}.weight": values for number in range(layers)}
    return write_safetensors(folder / f"{layers}x{rows}x{columns}.safetensors", state)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Peak of a scan of one tiny layer."""
    return peak_of_scan(model(tmp_path_factory.mktemp("tiny"), 1, 8, 8), 1)


def test_the_peak_does_not_grow_with_the_number_of_layers(base: int, tmp_path: Path) -> None:
    rows, columns = 8192, 512
    layer = 4 * rows * columns
    two = peak_of_scan(model(tmp_path, 2, rows, columns), 2)

    forty = peak_of_scan(model(tmp_path, 40, rows, columns), 40)

    assert layer == 16 * MIB
    assert two <= base + LIMIT * layer
    assert forty <= base + LIMIT * layer
    assert forty <= two + layer


def test_square_layers_where_the_gram_matrix_is_as_large_as_the_layer_stay_within_the_limit(
    base: int, tmp_path: Path
) -> None:
    side = 2048
    layer = 4 * side * side
    two = peak_of_scan(model(tmp_path, 2, side, side), 2)

    four = peak_of_scan(model(tmp_path, 4, side, side), 4)

    assert two <= base + LIMIT * layer
    assert four <= two + layer


def test_comparing_with_a_baseline_file_stays_within_the_limit(base: int, tmp_path: Path) -> None:
    side = 2048
    path = model(tmp_path, 2, side, side)

    assert peak_of_scan(path, 2, baseline=path) <= base + LIMIT * 4 * side * side


def test_what_was_read_before_its_memory_was_given_back_can_still_be_read(tmp_path: Path) -> None:
    reader = open_model(model(tmp_path, 2, 64, 64))
    values = reader.load("layer0.weight")
    before = values.copy()

    reader.release()

    np.testing.assert_array_equal(values, before)
    np.testing.assert_array_equal(reader.load("layer1.weight"), before)
    reader.close()
    np.testing.assert_array_equal(values, before)
