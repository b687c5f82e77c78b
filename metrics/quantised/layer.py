"""What a quantised layer is: its parts, how they are to be read, and what contradicts what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.tensors import Array

Facts = Mapping[str, tuple[tuple[int, ...], str]]
"""Shape and stored type (safetensors spelling) of every tensor of a model, by name."""

LoadPart = Callable[[str], Array]
"""Values of one tensor by its name, as stored; raises UnreadableError."""

Parts = Mapping[str, Array]
"""Values of a layer's parts, by role."""


class RemarkKind(StrEnum):
    """What about a quantised layer is not as it should be.

    ``format``: the declared method, layout or number type is another one than the tensors show; ``bits`` and
    ``group_size``: the same for these numbers; ``zero_point``: the stored zero points follow another convention than
    the declared one; ``group_index``: the order of the inputs contradicts itself or what is declared;
    ``missing_part``: a tensor that belongs to the layer is not there; ``shapes``: the parts do not fit each other;
    ``excluded``: the layer is declared to be left alone; ``scales``: some are no usable factors; ``codebook``: the
    stored table of values is not the one of its type.
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


@dataclass(frozen=True, slots=True)
class Remark:
    """One contradiction.

    Attributes:
        kind: member of the closed list.
        detail: one sentence for the user.
        declared: what the configuration (or the format) says, as text; empty where nothing is declared.
        stored: what the tensors show, as text.
    """

    kind: RemarkKind
    detail: str
    declared: str = ""
    stored: str = ""


@dataclass(frozen=True, slots=True)
class QuantisedLayer:
    """One layer that is stored quantised.

    Attributes:
        name: the layer, without ``.weight`` and without the name of a part.
        scheme: key of the table of schemes.
        parts: role to tensor name; the roles are those of the scheme.
        shape: shape of the values, (out, in) or (experts, out, in); None where only the values of a part tell it.
        remarks: contradictions that names, shapes, types and configuration show.
        bits: bits per stored number; None where only the values of a part tell it.
        group_size: inputs that share a scale; None for all, or where a part tells which do.
        zero_offset: what is added to a stored zero point (1 for the first version of GPTQ).
        block: elements along each axis that share a scale, for scales in blocks.
        reason: why the storage is not undone, or None where it is.
        whole_name: whether the tensor that it was made from is called ``name`` itself, without ``.weight``.
    """

    name: str
    scheme: str
    parts: Mapping[str, str]
    shape: tuple[int, ...] | None
    remarks: tuple[Remark, ...] = ()
    bits: int | None = None
    group_size: int | None = None
    zero_offset: int = 0
    block: tuple[int, ...] | None = None
    reason: str | None = None
    whole_name: bool = False

    @property
    def reading(self) -> str:
        """How the parts are read, as text: with the parts' bytes it determines the values."""
        return f"{self.scheme} {self.shape} {self.bits} {self.group_size} {self.zero_offset} {self.block}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a layer stands, for errors.

    Attributes:
        path: the model.
        tensor: the part that names the layer.
    """

    path: str
    tensor: str

    def unreadable(
        self, detail: str, reason: UnreadableReason = UnreadableReason.UNSUPPORTED_TENSOR
    ) -> UnreadableError:
        """The error that says why this layer cannot be turned back into numbers."""
        return UnreadableError(reason, self.path, detail, self.tensor)

    def require(self, parts: Parts, role: str) -> Array:
        """One part; raises UnreadableError(QUANTISED_WITHOUT_SCALE) where it is missing."""
        if role not in parts:
            raise self.unreadable(
                f"stored quantised and its {role} is missing: without it there are no numbers; "
                "export the model again, or copy the file that holds it",
                UnreadableReason.QUANTISED_WITHOUT_SCALE,
            )
        return parts[role]


@dataclass
class Remarks:
    """Collects remarks while a layer is recognised."""

    found: list[Remark] = field(default_factory=list)

    def add(self, kind: RemarkKind, detail: str, *, declared: object = "", stored: object = "") -> None:
        """Add one."""
        self.found.append(Remark(kind, detail, str(declared), str(stored)))

    def missing(self, name: str) -> None:
        """A tensor that belongs to the layer is not there."""
        self.add(RemarkKind.MISSING_PART, f"there is no tensor {name}", declared=name, stored="missing")

    def compare(self, kind: RemarkKind, what: str, declared: object, stored: object) -> None:
        """Add one where something is declared and is not what is stored."""
        if declared is not None and stored is not None and declared != stored:
            self.add(
                kind,
                f"the configuration declares {what} {declared}, the tensors show {stored}",
                declared=declared,
                stored=stored,
            )
