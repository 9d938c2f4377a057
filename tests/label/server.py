"""Start MONAI Label's server with its stock app and talk to it as its clients do."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.conftest import ROOT

LABEL = ROOT / ".venv-label" / "bin"
MODEL = "cesm_virtual_contrast"
SITE = Path(__file__).with_name("site")


class Answer(NamedTuple):
    """HTTP status, content type and body."""

    status: int
    kind: str
    body: bytes


class Server(NamedTuple):
    """A running server."""

    url: str
    log: Path

    def ask(self, path: str, method: str = "GET", body: Any = None) -> Answer:
        """One request; a body is sent as JSON."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310
            self.url + path, data, {"Content-Type": "application/json"} if data else {}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310
                return Answer(answer.status, answer.headers.get_content_type(), answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.headers.get_content_type(), error.read())

    def infer(self, image: str) -> Answer:
        """Ask for the virtual DES of an image of the datastore."""
        return self.ask(f"/infer/{MODEL}?image={image}&output=image", "POST")

    def train(self, **params: Any) -> dict[str, Any]:
        """Train and wait for the end; the finished task."""
        started = self.ask(f"/train/{MODEL}", "POST", params)
        assert started.status == 200, started
        for _ in range(600):
            task: dict[str, Any] = json.loads(self.ask("/train/").body)
            if task["status"] not in ("SUBMITTED", "RUNNING"):
                return task
            time.sleep(1)
        raise TimeoutError(f"the training has not ended: see {self.log}")

    def logs(self, words: str) -> bool:
        """Whether the log has these words within seconds: an error is answered before it is logged."""
        for _ in range(20):
            if words in self.log.read_text(encoding="utf-8", errors="replace"):
                return True
            time.sleep(0.5)
        return False


def environment(**more: str) -> dict[str, str]:
    """Without GPUs, without other people's settings of MONAI Label; models are not looked for in the zoo."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MONAI_")}
    paths = {"PATH": f"{LABEL}{os.pathsep}{kept['PATH']}", "PYTHONPATH": str(SITE)}
    alone = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "MONAI_ZOO_SOURCE": "ngc"}
    return kept | paths | alone | more


def stock_app(folder: Path) -> Path:
    """A fresh copy of the app ``monaibundle`` in a folder."""
    line = ["monailabel", "apps", "--download", "--name", "monaibundle", "--output", str(folder)]
    subprocess.run(line, env=environment(), cwd=folder, check=True, capture_output=True)
    app = folder / "monaibundle"
    (app / "model").mkdir()
    return app


def tiny_bundle(app: Path) -> Path:
    """The bundle in the app's model folder, with a network and images small enough for seconds; without weights."""
    root = app / "model" / MODEL
    for name in ("bundle", "configs"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train", "inference"):
        file = root / "configs" / f"{name}.json"
        config = json.loads(file.read_text(encoding="utf-8"))
        config["image_size"] = 32
        config["network_def"] |= {"width": 4, "blocks": 1}
        if name == "train":
            config["discriminator_a_def"]["width"] = 4
        file.write_text(json.dumps(config), encoding="utf-8")
    (root / "models").mkdir()
    return root


@contextlib.contextmanager
def served(app: Path, studies: Path, log: Path, **more: str) -> Iterator[Server]:
    """The server on the images of ``studies``, until the end of the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    line = ["monailabel", "start_server", "--app", str(app), "--studies", str(studies), "--host", "127.0.0.1"]
    line += ["--port", port, "--conf", "models", MODEL, "--conf", "sam2", "false"]
    with log.open("w") as output:
        process = subprocess.Popen(line, env=environment(**more), cwd=app, stdout=output, stderr=output)
    server = Server(f"http://127.0.0.1:{port}", log)
    try:
        _wait_for(server, process)
        yield server
    finally:
        process.terminate()
        process.wait(60)


def _wait_for(server: Server, process: subprocess.Popen[bytes]) -> None:
    for _ in range(180):
        if process.poll() is not None:
            break
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            if server.ask("/info/").status == 200:
                return
        time.sleep(1)
    raise RuntimeError("the server has not started:\n" + tail(server.log))


def tail(log: Path) -> str:
    """The end of a log, without the colours of a terminal."""
    return re.sub(r"\x1b\[\d+m", "", log.read_text(encoding="utf-8", errors="replace"))[-3000:]
