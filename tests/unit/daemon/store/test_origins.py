"""What a parent's name means."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layerwatch.daemon.store import refs
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.origins import name_of, resolve
from storetools import NOW, NewDatabase, judged, registered

SHA = "0123456789abcdef0123456789abcdef01234567"


def filled(connection: sa.Connection) -> None:
    judged(connection, "v1")
    judged(connection, "3", model="fraud", registry="flow")
    champion = judged(connection, "10", model="fraud", registry="flow")
    refs.point(connection, "flow", "fraud", "champion", champion.id, NOW)
    judged(connection, SHA, model="meta/llama", registry="hub")
    judged(connection, "v1", model="other")
    judged(connection, "v2", model="other")
    judged(connection, "b", model="bytes", fingerprint="ab" * 32)


@pytest.mark.parametrize(
    ("parent", "meant"),
    [
        ("v1", "r/m/v1"),
        ("other/v1", "r/other/v1"),
        ("r/other/v1", "r/other/v1"),
        ("/srv/models/other/v1", "r/other/v1"),
        ("other", "r/other/v2"),
        ("other@v1", "r/other/v1"),
        ("other@v9", None),
        ("fraud", "flow/fraud/10"),
        ("flow/fraud/3", "flow/fraud/3"),
        ("models:/fraud/3", "flow/fraud/3"),
        ("models:/fraud@champion", "flow/fraud/10"),
        ("models:/fraud", "flow/fraud/10"),
        ("models:/fraud@nobody", None),
        ("meta/llama", f"hub/meta/llama/{SHA}"),
        (f"hf:meta/llama@{SHA}", f"hub/meta/llama/{SHA}"),
        ("hf:meta/llama@0123456", f"hub/meta/llama/{SHA}"),
        ("hf:meta/llama@7777777", None),
        ("https://huggingface.co/meta/llama", f"hub/meta/llama/{SHA}"),
        (f"https://huggingface.co/meta/llama/tree/{SHA}", f"hub/meta/llama/{SHA}"),
        ("org/v1", "r/m/v1"),
        ("org/fraud", "flow/fraud/10"),
        ("ab" * 32, "r/bytes/b"),
        ("sha256:" + "ab" * 32, "r/bytes/b"),
        ("cd" * 32, None),
        ("hf:nobody/nothing", None),
        ("v2", None),
        ("", None),
        ("@", None),
        ("/", None),
    ],
)
def test_names_mean_versions(database: Database, parent: str, meant: str | None) -> None:
    with database.write() as connection:
        filled(connection)
        found = resolve(connection, registered(connection, "new"), parent)
        key = found.key if found else None
        assert (f"{key.registry}/{key.model}/{key.version}" if key else None) == meant


def test_no_version_is_its_own_parent(database: Database) -> None:
    with database.write() as connection:
        version = judged(connection, "v1")
        for name in ("v1", "m/v1", "r/m/v1", "m", version.fingerprint, "hf:m"):
            assert resolve(connection, version, name) is None


def test_a_model_of_several_versions_is_not_exact(database: Database) -> None:
    with database.write() as connection:
        filled(connection)
        version = registered(connection, "new")
        assert resolve(connection, version, "other", exact=True) is None
        assert resolve(connection, version, "meta/llama", exact=True) is not None
        assert resolve(connection, version, "other@v1", exact=True) is not None
        # Another commit of the same bytes leaves no doubt.
        judged(
            connection,
            "f" * 40,
            model="meta/llama",
            registry="hub",
            fingerprint=f"bytes-of-hub-meta/llama-{SHA}",
        )
        assert resolve(connection, version, "meta/llama", exact=True) is not None


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(parent=st.text(max_size=40) | st.text(alphabet="/@:+amv1.%_", max_size=20))
def test_no_text_is_too_much(new_database: NewDatabase, parent: str) -> None:
    assert len(name_of(parent)) <= len(parent)
    if not parent.isascii():
        return
    with new_database() as database, database.write() as connection:
        version = judged(connection, "new")
        resolve(connection, version, parent)
