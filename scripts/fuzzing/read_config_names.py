"""What reads names and values of a config from a command line. Configs themselves are code, and trusted."""

from __future__ import annotations

import json
from pathlib import Path

from bundle.overrides import unknown_ids
from scripts.config_values import override_of, overrides_of, refuse_unknown
from scripts.fuzzing.attempts import Attempts, Readers

__all__ = ["READERS"]


def _read(folder: Path, attempt: Attempts) -> None:
    words, options = json.loads((folder / "words.json").read_text(encoding="utf-8"))
    for word in words:
        attempt(lambda word=word: override_of(word), ValueError)  # type: ignore[misc]
    found = attempt(lambda: overrides_of(options), ValueError)
    config = {"network": "@network_def", **(found or {})}
    unknown_ids(config, {"network"})
    attempt(lambda: refuse_unknown(config, {"network", "network_def"}, found or {}), ValueError)


READERS = Readers(_read, ())
