"""The DICOM reader under atheris, which changes bytes towards new lines of pydicom and of ours.

In place of hypothesis, for who wants to search for long: ``scripts/fuzz.py --engine atheris`` after
``pip install atheris==3.0.0``. It stops at the first finding.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.fuzzing.dicom_elements import SYNTAXES, base, whole
from scripts.fuzzing.engine import FINDINGS
from scripts.fuzzing.supervisor import CPU_SECONDS, MEMORY
from scripts.fuzzing.tried import Input, save

__all__ = ["search"]

_ROOT = Path(__file__).resolve().parents[2]
_LARGEST = 8192
"""Bytes of an input."""


def search(seconds: float, seed: int, output: Path) -> list[Path]:
    """Try changed mammograms on the DICOM reader for some time; return the findings, as ``scripts/fuzz.py`` keeps them.

    Raises:
        ValueError: atheris is not installed.
    """
    if importlib.util.find_spec("atheris") is None:
        raise ValueError("--engine atheris needs atheris, which is not installed: pip install atheris==3.0.0")
    kept = output / FINDINGS
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        corpus, found = Path(folder, "corpus"), Path(folder, "found")
        corpus.mkdir()
        found.mkdir()
        for number, syntax in enumerate(SYNTAXES):
            (corpus / str(number)).write_bytes(whole(base(syntax)))
        limits = [f"-max_total_time={max(1, round(seconds))}", f"-timeout={CPU_SECONDS:.0f}", f"-seed={seed + 1}"]
        limits += [f"-rss_limit_mb={2 * MEMORY // 2**20}", f"-max_len={_LARGEST}", f"-artifact_prefix={found}/"]
        line = [sys.executable, "-m", "scripts.fuzzing.guided", *limits, "-print_final_stats=1", str(corpus)]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        }
        done = subprocess.run(  # noqa: S603 (our own module)
            line, cwd=_ROOT, env=environment, capture_output=True, text=True, errors="replace", check=False
        )
        count = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
        print(f"dicom under atheris: {count[1] if count else 0} inputs")
        files = sorted(found.iterdir())
        if done.returncode and not files:
            raise ValueError(f"atheris ended with {done.returncode}: {done.stderr[-2000:]}")
        for file in files:
            save(kept / f"dicom-{file.name}.json", "dicom", done.stderr[-4000:], Input({"a.dcm": file.read_bytes()}))
        return [kept / f"dicom-{file.name}.json" for file in files]


def _main() -> None:
    import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

    with atheris.instrument_imports(include=["pydicom", "bundle.dicom"]):
        from bundle.dicom import kind_of, read_dicom
        from bundle.image_file_error import ImageFileError
    path = Path(tempfile.mkdtemp(), "a.dcm")

    def one(content: bytes) -> None:
        path.write_bytes(content)
        try:
            kind_of(read_dicom(path).header)
        except ImageFileError:
            return

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    _main()
