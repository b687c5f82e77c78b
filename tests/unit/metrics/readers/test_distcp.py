"""Directories written by torch.distributed.checkpoint, compared with what its own loader reads."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex
from torch.distributed.checkpoint.planner import SavePlan, TensorWriteData, WriteItem, WriteItemType
from torch.distributed.checkpoint.state_dict_loader import load as load_distributed
from torch.distributed.checkpoint.state_dict_saver import save as save_distributed

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.distcp import DistributedCheckpoint, is_metadata

pytestmark = pytest.mark.filterwarnings("ignore")


class Blocks(DefaultSavePlanner):
    """Writes each tensor in blocks, as the ranks of a mesh do together."""

    def create_local_plan(self) -> SavePlan:
        """Every tensor of two or more rows in two parts along each axis."""
        plan = super().create_local_plan()
        items = [block for item in plan.items for block in _blocks(item)]
        self.plan = replace(plan, items=items)
        return self.plan

    def lookup_object(self, index: MetadataIndex) -> Any:
        """The whole tensor."""
        return self.state_dict[index.fqn]

    def transform_object(self, write_item: WriteItem, object: Any) -> Any:
        """The block."""
        if write_item.tensor_data is None or not isinstance(object, torch.Tensor):
            return super().transform_object(write_item, object)
        chunk = write_item.tensor_data.chunk
        place = tuple(slice(o, o + s) for o, s in zip(chunk.offsets, chunk.sizes, strict=True))
        return object[place]


def _blocks(item: WriteItem) -> list[WriteItem]:
    if item.tensor_data is None or not item.tensor_data.size:
        return [item]
    size = item.tensor_data.size
    blocks: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((), ())]
    for side in size:
        parts = [(0, side // 2), (side // 2, side - side // 2)] if side > 1 else [(0, side)]
        blocks = [((*o, begin), (*s, count)) for o, s in blocks for begin, count in parts]
    return [
        WriteItem(
            index=MetadataIndex(item.index.fqn, offsets, number),
            type=WriteItemType.SHARD,
            tensor_data=TensorWriteData(
                chunk=ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)),
                properties=item.tensor_data.properties,
                size=size,
            ),
        )
        for number, (offsets, sizes) in enumerate(blocks)
    ]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(2, 5, 3), nn.BatchNorm1d(5), nn.Linear(7, 3).to(torch.bfloat16))


def save(path: Path, state: dict[str, Any], **options: Any) -> Path:
    save_distributed(state, checkpoint_id=str(path), **options)
    return path


def refusal(path: Path) -> UnreadableError:
    with pytest.raises(UnreadableError) as caught:
        reader = DistributedCheckpoint(path)
        for info in reader.tensors():
            reader.load(info.name)
    return caught.value


def as_numpy(tensor: torch.Tensor) -> Any:
    return tensor.float().numpy() if tensor.dtype is torch.bfloat16 else tensor.numpy()


@pytest.mark.parametrize("planner", [None, Blocks], ids=["whole", "in blocks"])
def test_every_tensor_is_what_torch_loads(tmp_path: Path, planner: type[Blocks] | None) -> None:
    state = network().state_dict()
    save(tmp_path / "c", dict(state), planner=planner() if planner else None)
    expected = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    load_distributed(expected, checkpoint_id=str(tmp_path / "c"))
    reader = DistributedCheckpoint(tmp_path / "c")
    assert {info.name: info.shape for info in reader.tensors()} == {
        name: tuple(tensor.shape) for name, tensor in state.items()
    }
    assert {info.dtype for info in reader.tensors()} == {"F32", "BF16", "I64"}
    for name, tensor in expected.items():
        loaded = reader.load(name)
        assert np.array_equal(loaded.astype(np.float32), as_numpy(tensor)), name
        assert not loaded.flags.writeable
    reader.close()


def test_the_weights_of_a_training_checkpoint_are_found_and_its_state_is_left_out(tmp_path: Path) -> None:
    net = network().float()
    optimizer = torch.optim.Adam(net[0].parameters())
    net[0](torch.ones(1, 2, 4)).sum().backward()
    optimizer.step()
    state = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "note": "text"}
    reader = DistributedCheckpoint(save(tmp_path, state))
    assert [info.name for info in reader.tensors()] == list(net.state_dict())
    left_out = dict(reader.left_out)
    assert "training state" in left_out["optimizer"]
    assert "pickled" in left_out["epoch"]


def test_a_missing_file_and_a_missing_metadata_are_named(tmp_path: Path) -> None:
    save(tmp_path, network().state_dict())
    chunk = next(tmp_path.glob("*.distcp"))
    moved = chunk.rename(tmp_path / "elsewhere")
    error = refusal(tmp_path)
    assert error.reason is UnreadableReason.MISSING_SHARD
    assert chunk.name in error.detail
    moved.rename(chunk)
    (tmp_path / ".metadata").unlink()
    assert refusal(tmp_path).reason is UnreadableReason.MISSING_SHARD


def test_a_file_cut_off_is_refused_with_the_missing_byte_count(tmp_path: Path) -> None:
    save(tmp_path, {"w": torch.ones(100)})
    chunk = next(tmp_path.glob("*.distcp"))
    chunk.write_bytes(chunk.read_bytes()[:-13])
    error = refusal(tmp_path)
    assert error.reason is UnreadableReason.TRUNCATED
    assert error.tensor == "w"
    assert "13 bytes" in error.detail


def test_a_damaged_chunk_does_not_match_its_checksum(tmp_path: Path) -> None:
    save(tmp_path, {"w": torch.arange(100.0)})
    chunk = next(tmp_path.glob("*.distcp"))
    content = bytearray(chunk.read_bytes())
    content[content.index(torch.arange(100.0).numpy().tobytes()) + 9] ^= 4
    chunk.write_bytes(content)
    assert refusal(tmp_path).reason is UnreadableReason.CORRUPT


def test_files_that_the_metadata_does_not_name_are_left_out(tmp_path: Path) -> None:
    save(tmp_path, {"w": torch.ones(2)})
    (tmp_path / "__7_0.distcp").write_bytes(b"of an earlier save")
    assert dict(DistributedCheckpoint(tmp_path).left_out) == {
        "__7_0.distcp": "the metadata names nothing in it"
    }


def edited(path: Path, edit: Any) -> Path:
    """The metadata, changed by torch's own classes."""
    file = path / ".metadata"
    metadata = pickle.loads(file.read_bytes())  # noqa: S301 - written by this test
    edit(metadata)
    file.write_bytes(pickle.dumps(metadata))
    return path


def test_a_file_outside_the_directory_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "c", {"w": torch.ones(2)})
    next((tmp_path / "c").glob("*.distcp")).rename(tmp_path / "out.distcp")
    for name in ("../out.distcp", str(tmp_path / "out.distcp"), "..", "", "a\\b"):

        def rename(metadata: Any, name: str = name) -> None:
            for info in metadata.storage_data.values():
                info.relative_path = name

        error = refusal(edited(tmp_path / "c", rename))
        assert error.reason is UnreadableReason.BAD_HEADER, name
        assert "without any folder" in error.detail
    (tmp_path / "c" / "link.distcp").symlink_to(tmp_path / "out.distcp")

    def link(metadata: Any) -> None:
        for info in metadata.storage_data.values():
            info.relative_path = "link.distcp"

    assert refusal(edited(tmp_path / "c", link)).reason is UnreadableReason.MISSING_SHARD


def _shift(metadata: Any) -> None:
    entry = metadata.state_dict_metadata["w"]
    entry.chunks[1] = ChunkStorageMetadata(torch.Size([1, 0]), entry.chunks[1].sizes)
    (key,) = [key for key in metadata.storage_data if key.offset == torch.Size([0, 2])]
    metadata.storage_data[MetadataIndex("w", torch.Size([1, 0]))] = metadata.storage_data.pop(key)


def _outside(metadata: Any) -> None:
    metadata.state_dict_metadata["w"].size = torch.Size([3, 4])


def _larger(metadata: Any) -> None:
    metadata.state_dict_metadata["w"].size = torch.Size([40, 40])


def _another_type(metadata: Any) -> None:
    metadata.state_dict_metadata["w"].properties.dtype = torch.int32


def _packed(metadata: Any) -> None:
    for info in metadata.storage_data.values():
        info.transform_descriptors = ["zstd"]


def _unplaced(metadata: Any) -> None:
    metadata.storage_data.clear()


def _absurd(metadata: Any) -> None:
    metadata.state_dict_metadata["w"].size = torch.Size([2**62, 2**62])


@pytest.mark.parametrize(
    ("edit", "reason", "words"),
    [
        (_shift, UnreadableReason.BAD_HEADER, "overlap"),
        (_outside, UnreadableReason.BAD_HEADER, "does not fit"),
        (_larger, UnreadableReason.BAD_HEADER, "elements"),
        (_another_type, UnreadableReason.CORRUPT, "do not belong together"),
        (_packed, UnreadableReason.UNSUPPORTED_TENSOR, "extension"),
        (_unplaced, UnreadableReason.MISSING_SHARD, "no file is named"),
        (_absurd, UnreadableReason.BAD_PICKLE, "counts"),
    ],
)
def test_metadata_that_contradicts_itself_or_the_files_is_refused(
    tmp_path: Path, edit: Any, reason: UnreadableReason, words: str
) -> None:
    save(tmp_path, {"w": torch.ones(4, 4)}, planner=Blocks())
    error = refusal(edited(tmp_path, edit))
    assert (error.reason, words in error.detail) == (reason, True), error


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def test_code_in_the_metadata_is_never_executed(tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    save(tmp_path, {"w": torch.ones(2)})

    def plant(metadata: Any) -> None:
        metadata.storage_meta = Evil(trace)

    edited(tmp_path, plant)
    assert DistributedCheckpoint(tmp_path).load("w").tolist() == [1, 1]
    assert not trace.exists()
    (tmp_path / ".metadata").write_bytes(pickle.dumps(Evil(trace)))
    assert refusal(tmp_path).reason is UnreadableReason.BAD_PICKLE
    assert not trace.exists()


def test_metadata_is_known_by_its_content(tmp_path: Path) -> None:
    save(tmp_path, {"w": torch.ones(2)})
    assert is_metadata((tmp_path / ".metadata").read_bytes()[:512])
    assert not is_metadata(pickle.dumps({"w": 1}))
    assert DistributedCheckpoint(tmp_path / ".metadata").format == "pytorch-distributed"


def test_more_files_than_are_kept_open_are_read(tmp_path: Path) -> None:
    state = {f"w{number}": torch.full((3,), float(number)) for number in range(40)}
    save(
        tmp_path,
        state,
        storage_writer=FileSystemWriter(str(tmp_path), single_file_per_rank=False),
    )
    assert len(list(tmp_path.glob("*.distcp"))) == 40
    reader = DistributedCheckpoint(tmp_path)
    loaded = {name: reader.load(name) for name in state}
    assert {name: values.tolist() for name, values in loaded.items()} == {
        name: tensor.tolist() for name, tensor in state.items()
    }
    reader.release()
    reader.close()
    assert loaded["w0"].tolist() == [0, 0, 0]
