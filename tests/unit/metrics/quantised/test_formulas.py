"""Values against the published formulas, recomputed one number at a time from the bits of the words."""

from __future__ import annotations

import json
import tracemalloc

import ml_dtypes
import numpy as np
import pytest

from layerwatch.metrics.quantised.bits import unpack
from quantisers import AWQ_ORDER, Stored, awq, gptq, heavy_tailed, pack, packed
from storedlayers import the_layer, values_of

RANDOM = np.random.default_rng(3)


def bit_field(words: list[int], place: int, bits: int) -> int:
    """Number ``place`` of a row of words, as one long integer."""
    whole = sum((word & 0xFFFFFFFF) << (32 * index) for index, word in enumerate(words))
    return (whole >> (place * bits)) & ((1 << bits) - 1)


@pytest.mark.parametrize("bits", range(1, 9))
def test_numbers_are_found_in_their_words(bits: int) -> None:
    numbers = RANDOM.integers(0, 2**bits, (3, 37))
    words = pack(numbers, bits)

    assert np.array_equal(unpack(words, bits, 37), numbers)
    assert [bit_field(words[1].tolist(), place, bits) for place in range(37)] == numbers[1].tolist()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq_is_scale_times_number_less_zero_point(bits: int, version: int) -> None:
    """W[o, i] = scales[g, o] * (q[i, o] - zero[g, o]); version 1 stores zero - 1."""
    order = np.random.default_rng(1).permutation(64)
    stored, _ = gptq(
        heavy_tailed(32, 64), bits=bits, group=16, version=version, symmetric=False, order=order.tolist()
    )
    config = {
        "quant_method": "gptq",
        "bits": bits,
        "checkpoint_format": "gptq" if version == 1 else "gptq_v2",
    }

    found = values_of(stored, config)

    for out, inp in [(0, 0), (31, 63), (7, 20), (16, 33)]:
        group = int(stored["fc.g_idx"][inp])
        code = bit_field(stored["fc.qweight"][:, out].tolist(), inp, bits)
        zero = bit_field(stored["fc.qzeros"][group].tolist(), out, bits)
        zero = (zero + 1) % 2**bits if version == 1 else zero
        assert found[out, inp] == np.float32(stored["fc.scales"][group, out]) * np.float32(code - zero)


def test_gptq_without_an_index_has_groups_of_neighbours() -> None:
    stored, expected = gptq(heavy_tailed(32, 64), group=16)
    del stored["fc.g_idx"]

    assert np.array_equal(values_of(stored), expected)


def test_awq_holds_outputs_in_the_order_0_2_4_6_1_3_5_7() -> None:
    stored, _ = awq(heavy_tailed(32, 64), group=16)

    found = values_of(stored)

    for out, inp in [(0, 0), (31, 63), (9, 20), (14, 33)]:
        field = AWQ_ORDER.index(out % 8)
        code = bit_field([int(stored["fc.qweight"][inp, out // 8])], field, 4)
        zero = bit_field([int(stored["fc.qzeros"][inp // 16, out // 8])], field, 4)
        assert found[out, inp] == np.float32(stored["fc.scales"][inp // 16, out]) * np.float32(code - zero)


def test_awq_gemv_packs_inputs_in_order_and_pads_its_groups() -> None:
    """AutoAWQ ``WQLinear_GEMV.from_linear``: two groups of 64, padded to a width of two words."""
    codes = RANDOM.integers(0, 16, (16, 128))
    zeros = RANDOM.integers(0, 16, (16, 2))
    scales = np.zeros((16, 16), np.float16)
    scales[:, :2] = RANDOM.uniform(0.01, 0.02, (16, 2))
    stored: Stored = {
        "fc.qweight": pack(codes, 4),
        "fc.qzeros": pack(np.pad(zeros, ((0, 0), (0, 14))), 4),
        "fc.scales": scales,
    }
    config = {"quant_method": "awq", "version": "gemv", "bits": 4, "group_size": 64}

    assert the_layer(stored, config).shape == (16, 128)
    expected = (codes - zeros[:, np.arange(128) // 64]) * scales[:, np.arange(128) // 64].astype(np.float32)
    assert values_of(stored, config) == pytest.approx(expected)


def test_packed_words_with_gaps_are_read_as_older_releases_wrote_them() -> None:
    """Of compressed-tensors: 10 numbers of 3 bits per word, its two highest bits unused."""
    codes = RANDOM.integers(0, 8, (4, 200))
    words = [[bit_pack(row[begin : begin + 10]) for begin in range(0, 200, 10)] for row in codes.tolist()]
    scales = RANDOM.uniform(0.1, 0.2, (4, 10)).astype(np.float32)
    stored: Stored = {
        "fc.weight_packed": np.array(words, np.int64).astype(np.int32),
        "fc.weight_scale": scales,
        "fc.weight_shape": np.array([4, 200]),
    }

    assert values_of(stored) == pytest.approx((codes - 4) * scales[:, np.arange(200) // 20])


def bit_pack(numbers: list[int]) -> int:
    word = sum(number << (3 * place) for place, number in enumerate(numbers))
    return word - (1 << 32) if word >= 1 << 31 else word


def test_packed_experts_are_read_each_on_its_own() -> None:
    one, expected = packed(heavy_tailed(16, 64), group=16, name="experts")
    two, other = packed(heavy_tailed(16, 64, seed=1), group=16, name="experts")
    stored: Stored = {
        "experts.weight_packed": np.stack([one["experts.weight_packed"], two["experts.weight_packed"]]),
        "experts.weight_scale": np.stack([one["experts.weight_scale"], two["experts.weight_scale"]]),
        "experts.weight_shape": np.array([2, 16, 64]),
    }

    assert np.array_equal(values_of(stored), np.stack([expected, other]))


@pytest.mark.parametrize("storage", [np.uint8, np.float16, ml_dtypes.bfloat16, np.float32])
def test_nf4_codes_may_be_seen_as_any_storage_type(storage: type) -> None:
    """``bnb_4bit_quant_storage``: the same bytes, the first number in the high half of each."""
    table = np.linspace(-1, 1, 16, dtype=np.float32)
    codes = RANDOM.integers(0, 16, 512)
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [16, 32]}
    absmax = RANDOM.uniform(0.5, 1, 8).astype(np.float32)
    raw = (codes[0::2] << 4 | codes[1::2]).astype(np.uint8)
    # Bytes that are no finite number of the storage type are as good as any others.
    stored: Stored = {
        "fc.weight": raw.view(storage).reshape(-1, 1),
        "fc.weight.absmax": absmax,
        "fc.weight.quant_map": table,
        "fc.weight.quant_state.bitsandbytes__nf4": np.frombuffer(json.dumps(state).encode(), np.uint8),
    }

    found = values_of(stored)

    # QLoRA (arXiv:2305.14314), appendix E, to the digits printed there.
    nf4 = [-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0]
    nf4 += [0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1.0]
    expected = np.array(nf4)[codes] * np.repeat(absmax, 64)
    assert found.shape == (16, 32)
    assert found.reshape(-1) == pytest.approx(expected, abs=1e-4)


def test_modelopt_multiplies_its_second_scale() -> None:
    """https://github.com/NVIDIA/Model-Optimizer: ``weight_scale_2`` is the inverse of compressed-tensors' global."""
    packed_bytes = RANDOM.integers(0, 256, (8, 16), dtype=np.uint8)
    scales = RANDOM.uniform(1, 400, (8, 2)).astype(ml_dtypes.float8_e4m3fn)
    modelopt: Stored = {
        "fc.weight": packed_bytes,
        "fc.weight_scale": scales,
        "fc.weight_scale_2": np.array(2.0**-12, np.float32),
    }
    compressed: Stored = {
        "fc.weight_packed": packed_bytes,
        "fc.weight_scale": scales,
        "fc.weight_global_scale": np.array([2.0**12], np.float32),
    }

    found = values_of(modelopt)

    assert np.array_equal(found, values_of(compressed))
    # 0x2 is 1.0 and 0xF is -6.0 in E2M1 (OCP Microscaling Formats 1.0, table 5).
    modelopt["fc.weight"] = np.full((8, 16), 0xF2, np.uint8)
    whole = values_of(modelopt)
    assert np.array_equal(whole[:, 1], -6 * whole[:, 0])
    assert whole[0, 0] == np.float32(scales[0, 0]) * np.float32(2.0**-12)


def test_a_scale_of_one_byte_is_a_power_of_two_and_255_is_no_number() -> None:
    """OCP Microscaling Formats 1.0, section 5.4.1."""
    stored: Stored = {
        "fc.weight": np.ones((2, 64), ml_dtypes.float8_e4m3fn),
        "fc.weight_scale": np.array([[127, 120], [130, 255]], np.uint8),
    }

    found = values_of(stored)

    assert found[:, [0, 32]].tolist() == [[1.0, 2.0**-7], [8.0, pytest.approx(np.nan, nan_ok=True)]]


@pytest.mark.parametrize(
    ("shape", "scale"),
    [
        ((6, 4), (6,)),
        ((6, 4), (6, 1)),
        ((6, 4), (1,)),
        ((6, 4), ()),
        ((6, 4), (6, 2)),
        ((6, 4), (2, 2)),
        ((3, 6, 4), (3,)),
        ((3, 6, 4), (3, 6)),
        ((3, 6, 4), (3, 6, 1)),
        ((3, 6, 4), (3, 2, 2)),
        ((3, 2, 3, 3), (3, 1, 1, 1)),
    ],
)
def test_scales_are_spread_over_rows_runs_and_blocks(shape: tuple[int, ...], scale: tuple[int, ...]) -> None:
    stored = RANDOM.integers(-127, 128, shape).astype(np.int8)
    factors = RANDOM.uniform(0.1, 1, scale).astype(np.float32)
    aligned = factors.reshape(scale + (1,) * (len(shape) - len(scale)))

    found = values_of({"fc.weight": stored, "fc.weight_scale": factors})

    for place in np.ndindex(*shape):
        at = tuple(i * n // length for i, n, length in zip(place, aligned.shape, shape, strict=True))
        assert found[place] == np.float32(stored[place]) * aligned[at]


def test_a_large_layer_is_undone_in_blocks_of_rows() -> None:
    """Beside the values themselves there are a few blocks of about ten megabytes, never a second copy."""
    rows, columns = 4096, 4096
    stored: Stored = {
        "fc.qweight": np.full((columns // 8, rows), 0x12345678, np.int32),
        "fc.qzeros": np.full((columns // 128, rows // 8), 0x77777777, np.int32),
        "fc.scales": np.full((columns // 128, rows), 0.01, np.float16),
    }
    tracemalloc.start()
    try:
        found = values_of(stored)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert found[5, :8].tolist() == pytest.approx(
        [0.01 * (code - 8) for code in (8, 7, 6, 5, 4, 3, 2, 1)], abs=1e-4
    )
    assert most < found.nbytes * 1.4
