"""What a pickle turns into here: plain containers, names of globals, and inert stand-ins for objects.

Nothing in this module calls, imports or compares anything foreign. Stand-ins hash and compare by identity.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from layerwatch.metrics.readers.dtypes import StoredType


@dataclass(frozen=True, slots=True)
class Global:
    """The name of something importable. It is never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"[:120]


@dataclass(eq=False, slots=True)
class Opaque:
    """An object of a class that is not ours: what the pickle said about it, and no behaviour.

    Attributes:
        made_by: what would have been called to make it (a :class:`Global`, or any other value).
        arguments: what it would have been called with.
        state: what would have been restored into it, or None.
        items: members it would have had as a list or set.
        entries: members it would have had as a dict.
    """

    made_by: object
    arguments: tuple[object, ...] = ()
    state: object = None
    items: list[object] = field(default_factory=list)
    entries: dict[object, object] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class CompositeKey:
    """A dict key that is neither text nor a number. Tuples are not hashed: deep ones exhaust the C stack."""

    value: object


@dataclass(frozen=True, slots=True)
class Storage:
    """A reference to a run of bytes beside the pickle.

    Attributes:
        key: its name in the container.
        type: element type of this reference; two references to one storage may differ.
        numel: elements of the whole storage.
        view_offset: first element of the part referred to (legacy containers only).
        view_numel: elements of that part.
    """

    key: str
    type: StoredType
    numel: int
    view_offset: int
    view_numel: int


@dataclass(frozen=True, eq=False, slots=True)
class StoredTensor:
    """A strided view of a storage, as declared: not yet checked against the storage.

    Attributes:
        type: element type of the tensor (differs from the storage's for untyped storages).
        offset: first element, counted in ``type`` from the beginning of the storage's part.
        shape, strides: in elements.
        refusal: why its values cannot be loaded, or None.
        quantiser: how its numbers become values, or None where they are values.
    """

    storage: Storage
    type: StoredType
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    refusal: str | None = None
    quantiser: Quantiser | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Quantiser:
    """How torch's own quantised tensors become values: ``(q - zero_point) * scale``.

    Attributes:
        scale, zero_point: one number each, or one per slice of ``axis``.
        axis: None for one of each.
    """

    scale: float | StoredTensor
    zero_point: float | StoredTensor
    axis: int | None


@dataclass(frozen=True, eq=False, slots=True)
class ExoticTensor:
    """A tensor that is no strided view: sparse, nested, on the meta device, of a wrapper class.

    Attributes:
        type: element type as far as it is known.
        shape: as declared, () where unknown.
        refusal: why its values cannot be loaded.
    """

    type: StoredType
    shape: tuple[int, ...]
    refusal: str


def describe(value: object) -> str:
    """A short name of a value for error messages. Never prints containers: they may be deep or cyclic."""
    if isinstance(value, str):
        return repr(value[:60])
    if isinstance(value, int) and value.bit_length() > 128:
        return f"a number of {value.bit_length()} bits"
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, Global):
        return str(value)
    if isinstance(value, Opaque):
        return f"an object of {value.made_by}" if isinstance(value.made_by, Global) else "an object"
    return _CALLED.get(type(value), f"a {type(value).__name__}")


_CALLED: dict[type[object], str] = {
    Storage: "a storage",
    StoredTensor: "a tensor",
    ExoticTensor: "a tensor",
    CompositeKey: "a key that is neither text nor a number",
}
