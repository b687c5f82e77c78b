"""Files of one folder that hold the same network in several types, as ``model.safetensors`` and ``model.fp16.safetensors``.

Two files of equal names and shapes may as well be two networks (experts, an average of the weights and the last ones):
they are variants only where their own names say so, by a type from a closed table at the end. The types are those of
Hugging Face's ``variant`` (https://huggingface.co/docs/diffusers/using-diffusers/loading), of converters to FP8 and ONNX,
and of llama.cpp's ``llama-quantize``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from layerwatch.metrics.readers.joined import Part
from layerwatch.metrics.readers.shards import model_name

SAME_NETWORK = "by name and shape: not examined"
"""How the reason ends for which a file with the tensors of another one is left out."""

_TYPES = (
    r"b?fp?16|fp?(32|64)|b?float16|float(32|64)",
    r"fp8([-_]?(e4m3(fn)?(uz)?|e5m2(fn)?(uz)?))?|fp4|mxfp[468]|nvfp4|nf4|bnb4|u?int[48]|q[48](f16)?",
    # Weights by an importance matrix are called i1, those of a maker's own recipe UD.
    r"(ud[-_]|i1[-_])?(q[1-8]_(0|1|k)(_(xxs|xs|s|m|l|xl))?|q4_0_[48]_[48]|iq[1-4]_(xxs|xs|s|m|nl)|tq[12]_0|mxfp4_moe)",
)
_TYPED = re.compile(rf"(?:(?P<network>.+?)[-._])?(?P<type>{'|'.join(_TYPES)})", re.ASCII | re.IGNORECASE)


def variants(parts: Sequence[Part]) -> list[tuple[Part, Part]]:
    """Which parts are to be left out, each with the one that is examined in its place.

    That is the one with the most bytes, hence of the highest precision; among equals the one with the shortest name.
    Variants are of one folder and one format, have the same names and shapes of tensors, and are called the same but for
    the type at the end.
    """
    alike: dict[object, list[Part]] = {}
    for part in parts:
        network, _ = _network_and_type(part)
        outline = frozenset((info.name, info.shape) for info in part.reader.tensors())
        if not part.reader.unexamined:
            alike.setdefault((part.path.parent, network, part.reader.format, outline), []).append(part)
    return [
        (part, main)
        for group in alike.values()
        for main in [min(group, key=_rank)]
        for part in group
        # m.pt and m.pth do not say that they differ by type.
        if _network_and_type(part) != _network_and_type(main)
    ]


def _network_and_type(part: Part) -> tuple[str, str]:
    name = model_name(part.path)
    typed = _TYPED.fullmatch(name)
    return (typed["network"] or "", typed["type"].lower()) if typed else (name, "")


def _rank(part: Part) -> tuple[int, int, str]:
    name = part.path.name
    return -sum(info.size_bytes for info in part.reader.tensors()), len(name), name
