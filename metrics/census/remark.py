"""A remark about how a model is stored, and its form as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class StorageRemarkKind(StrEnum):
    """What about the storage of a model is not as it should be.

    The first ten are those of :class:`layerwatch.metrics.quantised.layer.RemarkKind`, about one quantised layer. Then
    ``nothing_quantised``: quantised storage is declared and there is none; ``left_unquantised``: a layer is stored in
    full precision among quantised siblings; ``quantised_alone``: the reverse. The others hold the declared sizes
    against the tensors: ``missing_blocks`` and ``extra_blocks`` (blocks of layers), ``vocabulary`` (fewer rows of the
    embedding than tokens), ``extra_rows`` (more, and no padding), ``hidden_size`` (its columns). ``code_in_pickle``: a
    file asks for functions that run code of its author when it is unpickled unguarded.
    """

    FORMAT = "format"
    BITS = "bits"
    GROUP_SIZE = "group_size"
    ZERO_POINT = "zero_point"
    GROUP_INDEX = "group_index"
    MISSING_PART = "missing_part"
    SHAPES = "shapes"
    EXCLUDED = "excluded"
    SCALES = "scales"
    CODEBOOK = "codebook"
    NOTHING_QUANTISED = "nothing_quantised"
    LEFT_UNQUANTISED = "left_unquantised"
    QUANTISED_ALONE = "quantised_alone"
    MISSING_BLOCKS = "missing_blocks"
    EXTRA_BLOCKS = "extra_blocks"
    VOCABULARY = "vocabulary"
    EXTRA_ROWS = "extra_rows"
    HIDDEN_SIZE = "hidden_size"
    CODE_IN_PICKLE = "code_in_pickle"


@dataclass(frozen=True, slots=True)
class StorageRemark:
    """One contradiction in the storage of a model.

    Attributes:
        layer: name of the layer without ``.weight``; empty for the model as a whole.
        kind: member of the closed list.
        detail: one sentence for the user.
        declared: what the configuration (or the format) says, as text; empty where nothing is declared.
        stored: what the tensors show, as text.
    """

    layer: str
    kind: StorageRemarkKind
    detail: str
    declared: str = ""
    stored: str = ""

    @property
    def about(self) -> tuple[str, StorageRemarkKind, str, str]:
        """Equal for the same remark about two versions of a model."""
        return self.layer, self.kind, self.declared, self.stored


def remark_to_json(remark: StorageRemark) -> dict[str, str]:
    """The remark as data."""
    return asdict(remark)


def remark_of(data: Mapping[str, Any]) -> StorageRemark:
    """The remark of :func:`remark_to_json`; raises ValueError, LookupError or TypeError."""
    texts = {name: data[name] for name in ("layer", "detail", "declared", "stored")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise TypeError("a remark consists of texts")
    return StorageRemark(kind=StorageRemarkKind(data["kind"]), **texts)
