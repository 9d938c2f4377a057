"""No exported file outlives the weights it was made of."""

from __future__ import annotations

import json
import logging
import zipfile
from pathlib import Path
from typing import Any, cast

import pytest
from ignite.engine import Engine

from bundle.exports import EXPORT_SUFFIXES, RECORD, recorded, remove_exports, stale_reason
from bundle.files import sha256_of
from bundle.selection import BestModel


def archive(path: Path, **record: Any) -> Path:
    with zipfile.ZipFile(path, "w") as content:
        content.writestr("model/extra/metadata.json", "{}")
        if record:
            content.writestr(f"model/extra/{RECORD}", json.dumps(record))
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    path.write_bytes(b"weights")
    return path


def test_an_archive_tells_what_its_export_wrote_down(tmp_path: Path) -> None:
    assert recorded(archive(tmp_path / "ours.ts", weights_sha256="0")) == {"weights_sha256": "0"}
    assert recorded(archive(tmp_path / "ckpt_export.ts")) is None
    (tmp_path / "broken.ts").write_bytes(b"no archive")
    assert recorded(tmp_path / "broken.ts") is None


def test_a_torchscript_is_stale_once_its_weights_changed_are_gone_or_unknown(weights: Path) -> None:
    assert stale_reason(weights) is None
    path = archive(weights.with_suffix(".ts"), weights_sha256=sha256_of(weights))
    assert stale_reason(weights) is None
    weights.write_bytes(b"others")
    assert "is of other weights" in str(stale_reason(weights))
    weights.unlink()
    assert "not there" in str(stale_reason(weights))
    archive(path)
    assert "does not say of which weights" in str(stale_reason(weights))


def test_exports_of_weights_are_removed_by_name_and_nothing_else(
    weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    others = [weights.with_name(name) for name in ("other.ts", "model.txt", "README.md")]
    exports = [weights.with_suffix(suffix) for suffix in EXPORT_SUFFIXES]
    for path in (*others, *exports):
        path.touch()
    with caplog.at_level(logging.INFO, logger="cesm"):
        remove_exports(weights)
    assert sorted(weights.parent.iterdir()) == sorted([weights, *others])
    assert all(str(path) in caplog.text for path in exports)


def test_a_training_that_writes_weights_leaves_no_torchscript_of_older_ones(tmp_path: Path, make_trainer: Any) -> None:
    trainer = make_trainer()
    output, served = tmp_path / "run", tmp_path / "models" / "model.pt"
    for path in (output / "model.ts", served.with_suffix(".ts"), served.with_suffix(".onnx")):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"of older weights")
    evaluator = Engine(lambda engine, batch: None)  # noqa: ARG005
    best = BestModel(evaluator, trainer.network, output, served)
    best._accept(cast(Any, trainer), 0.1)
    assert sorted(path.name for path in served.parent.iterdir()) == ["model.pt"]
    assert not (output / "model.ts").exists()
