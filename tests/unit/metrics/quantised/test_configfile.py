"""``config.json`` beside the weights: read when it is one, and only from where the model is."""

from __future__ import annotations

from pathlib import Path

from layerwatch.metrics.quantised.configfile import MAX_BYTES, config_beside


def test_a_configuration_that_cannot_be_one_counts_as_none(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    assert config_beside(folder) is None
    file = folder / "config.json"
    for raw in (b"", b"[]", b"{" * 9999, b'{"a": ' + b" " * MAX_BYTES + b"1}"):
        file.write_bytes(raw)
        assert config_beside(folder) is None
    file.write_text('{"bits": 4}')
    assert config_beside(folder) == config_beside(folder / "model.safetensors") == {"bits": 4}


def test_a_link_out_of_the_directory_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "models--a" / "snapshots" / "1"
    folder.mkdir(parents=True)
    (tmp_path / "secret.json").write_text("{}")
    (folder / "config.json").symlink_to(tmp_path / "secret.json")
    assert config_beside(folder) is None

    blobs = tmp_path / "models--a" / "blobs"
    blobs.mkdir()
    (blobs / "0a").write_text('{"bits": 4}')
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(Path("..", "..", "blobs", "0a"))
    assert config_beside(folder) == {"bits": 4}
