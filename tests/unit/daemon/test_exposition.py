"""What a scrape gets: one gzip file, whatever was compressed beforehand."""

from __future__ import annotations

import gzip
import zlib

from hypothesis import given
from hypothesis import strategies as st

from layerwatch.daemon.exposition import Exposition

TEXTS = st.binary(max_size=300) | st.binary(max_size=20).map(lambda piece: piece * 5000)


@given(TEXTS, TEXTS)
def test_the_compressed_answer_is_the_plain_one(text: bytes, rest: bytes) -> None:
    exposition = Exposition.of(text, 1)

    assert exposition.followed_by(rest) == text + rest
    assert gzip.decompress(exposition.gzipped_with(rest)) == text + rest


@given(TEXTS, TEXTS)
def test_the_compressed_answer_is_a_single_gzip_member(text: bytes, rest: bytes) -> None:
    # Not every client reads a second one.
    reader = zlib.decompressobj(16 + zlib.MAX_WBITS)
    reader.decompress(Exposition.of(text, 1).gzipped_with(rest))

    assert reader.eof
    assert reader.unused_data == b""
