"""Who has only the address of a zip gets our weights and virtual images by the documented commands."""

from __future__ import annotations

import functools
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bundle.networks import ResnetGenerator
from scripts.export import main
from scripts.exporting import comparison
from tests.conftest import ROOT
from tests.workflow import environment

PAGE = (ROOT / "docs" / "how-to-use-weights.md").read_text(encoding="utf-8")
OVERRIDES = ["--network_def#width", "4", "--network_def#blocks", "1", "--image_size", "32"]


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(11)
    path = tmp_path / "trained" / "model.pt"
    path.parent.mkdir()
    torch.save(ResnetGenerator(width=4, blocks=1).state_dict(), path)
    return path


@pytest.fixture
def address(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A local server with the zip of these weights."""
    monkeypatch.setattr(comparison, "SHAPES", ((1, 32, 32),))
    assert main(["--model-path", str(weights), "--zip", str(tmp_path / "served"), *OVERRIDES]) == 0
    handler = functools.partial(QuietHandler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def documented(number: int) -> str:
    blocks = "".join(re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
    return blocks.splitlines()[number]


def execute(command: str, folder: Path, extra: str = "") -> str:
    """Run a documented command in a folder that is not the bundle's, without this checkout on Python's path."""
    variables, program, *arguments = re.match(r"(?:(\w+=\S+) )?(python) (.*)", command, re.DOTALL).groups()  # type: ignore[union-attr]
    environ = {key: value for key, value in environment().items() if key != "PYTHONPATH"}
    environ |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    environ |= dict([variables.split("=", 1)]) if variables else {}
    assert program == "python"
    line = [sys.executable, *shlex.split(f"{arguments[0]} {extra}")]
    result = subprocess.run(line, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, f"{command}\n{result.stdout[-2000:]}\n{result.stderr[-3000:]}"
    return result.stdout


@pytest.mark.slow
def test_the_bundle_is_downloaded_loaded_and_run_by_the_commands_of_the_page(address: str, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    images = empty / "my" / "dicom"
    images.mkdir(parents=True)
    execute(documented(0).replace("https://example.org/", address), empty)
    assert (empty / "cesm_virtual_contrast" / "models" / "model.ts").is_file()
    assert not (empty / "cesm_virtual_contrast" / "scripts").exists()

    assert "0.1.0" in execute(documented(1), empty)
    assert "ResnetGenerator" in execute(documented(3), empty)

    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 24), np.uint8)).save(images / "le.png")
    execute(documented(2), empty, "--device cpu")
    with Image.open(empty / "my" / "virtual" / "le_virtual_des.png") as made:
        assert made.size == (24, 40)


@pytest.mark.slow
def test_the_network_loaded_from_another_folder_has_our_weights_in_both_forms(
    address: str, weights: Path, tmp_path: Path
) -> None:
    empty, elsewhere = tmp_path / "empty", tmp_path / "elsewhere"
    for folder in (empty, elsewhere):
        folder.mkdir()
    execute(documented(0).replace("https://example.org/", address), empty)
    code = (
        "import monai.bundle, torch\n"
        f"net = monai.bundle.load('cesm_virtual_contrast', bundle_dir={str(empty)!r}, device='cpu', LOAD)\n"
        "net = net[0] if isinstance(net, tuple) else net\n"
        f"ours = torch.load({str(weights)!r}, weights_only=True)\n"
        "state = net.state_dict()\n"
        "assert state.keys() == ours.keys() and all(torch.equal(state[name], ours[name]) for name in ours)\n"
    )
    for load, path in (("load_ts_module=True", None), ("load_ts_module=False", empty / "cesm_virtual_contrast")):
        prefix = f"PYTHONPATH={path} " if path else ""
        execute(f"{prefix}python -c {shlex.quote(code.replace('LOAD', load))}", elsewhere)
