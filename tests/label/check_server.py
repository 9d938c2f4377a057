"""MONAI Label's own server and stock app on this bundle, over REST. `make label-test` runs it.

Its name keeps it out of `make test`: it needs a second environment, .venv-label.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from bundle.dicom import Kind
from bundle.networks import ResnetGenerator
from tests.archives.dicom_files import write_dicom
from tests.archives.phantom import phantom_pairs
from tests.label.server import LABEL, MODEL, Server, served, stock_app, tail, tiny_bundle
from tests.workflow import run

PAIRS = phantom_pairs(6, 64)[:6]
#: Mirrored, rectangular in mm, off the origin: a result that loses any of it is not on the source's grid.
AFFINE = np.array([[-0.07, 0, 0, 12.0], [0, -0.07, 0, -30.0], [0, 0, 1, 5.0], [0, 0, 0, 1]])
pytestmark = pytest.mark.skipif(not LABEL.is_dir(), reason="make label-test makes the environment .venv-label")


def tall(image: NDArray[Any]) -> NDArray[np.uint16]:
    """Rows cut off, so that padding to a square has to be undone."""
    return np.ascontiguousarray(image[4:-6]).astype(np.uint16)


def write(file: Path, image: NDArray[np.uint16]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".png":
        Image.fromarray((image / image.max() * 255).astype(np.uint8)).save(file)
    else:
        nibabel.save(nibabel.Nifti1Image(image.T[..., None], AFFINE), file)


def datastore(folder: Path, suffix: str) -> Path:
    """LE images, and the real DES as their final labels."""
    for number, pair in enumerate(PAIRS):
        write(folder / f"case{number}{suffix}", tall(pair.image))
        write(folder / "labels" / "final" / f"case{number}{suffix}", tall(pair.label))
    return folder


def weights(bundle: Path, seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    state = ResnetGenerator(width=4, blocks=1).state_dict()
    torch.save(state, bundle / "models" / "model.pt")
    return dict(state)


def read(file: Path) -> NDArray[np.float64]:
    """(H, W) in 0..255."""
    if file.suffix == ".png":
        return np.asarray(Image.open(file)).astype(np.float64)
    if file.suffix == ".dcm":
        header = pydicom.dcmread(file)
        return np.asarray(header.pixel_array / (2**header.BitsStored - 1) * 255)
    values = np.asarray(nibabel.Nifti1Image.from_filename(file).dataobj)
    assert values.shape[2:] == (1,)
    return values[..., 0].T.astype(np.float64) * (255 / 65535 if values.dtype == np.uint16 else 1)


def own_result(bundle: Path, source: Path, output: Path) -> Path:
    """What the bundle's own inference makes of the same image."""
    options = ["--bundle_root", str(bundle), "--dataset_dir", str(source), "--output_dir", str(output)]
    done = run("-m", "monai.bundle", "run", "--config_file", str(bundle / "configs" / "inference.json"), *options)
    assert done.returncode == 0, done.stderr[-3000:]
    return next(output.glob("*_virtual_des.*"))


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = stock_app(tmp_path_factory.mktemp("app"))
    weights(tiny_bundle(folder), seed=0)
    return folder


def check_inference(server: Server, app: Path, image: str, source: Path, tolerance: float) -> Path:
    """The server's answer equals the bundle's own result; the file of the answer."""
    answer = server.infer(image)
    assert answer.status == 200, tail(server.log)
    suffix = ".png" if answer.kind == "image/png" else ".nii.gz" if answer.body[:2] == b"\x1f\x8b" else ".nii"
    result = source.parent.parent / f"answer_{image}{suffix}"
    result.write_bytes(answer.body)
    own = own_result(app / "model" / MODEL, source, source.parent.parent / f"own_{image}")
    mine, theirs = read(own), read(result)
    assert mine.shape == theirs.shape == (54, 64)
    assert theirs.max() > 1
    assert theirs.std() > 1
    assert np.abs(mine - theirs).max() <= tolerance
    return result


def test_nifti_images_come_back_on_their_grid_and_a_training_over_rest_replaces_the_weights(
    app: Path, tmp_path: Path
) -> None:
    studies, bundle = datastore(tmp_path / "nifti", ".nii.gz"), app / "model" / MODEL
    model, source = bundle / "models" / "model.pt", studies / "case0.nii.gz"
    with served(app, studies, tmp_path / "server.log") as server:
        result = check_inference(server, app, "case0", source, tolerance=0.01)
        np.testing.assert_allclose(nibabel.Nifti1Image.from_filename(result).affine, AFFINE, atol=1e-5)
        before = torch.load(model, weights_only=True)
        for split in (0.2, 0):  # one case to validate with, and none
            task = server.train(max_epochs=1, val_split=split)
            assert task["status"] == "DONE", task["details"]
            after = torch.load(model, weights_only=True)
            ResnetGenerator(width=4, blocks=1).load_state_dict(after, strict=True)
            assert any(not torch.equal(before[name], after[name]) for name in after)
            before = after
        check_inference(server, app, "case1", studies / "case1.nii.gz", tolerance=0.01)


def test_png_images_come_back_as_png_and_serve_as_labels(app: Path, tmp_path: Path) -> None:
    studies = datastore(tmp_path / "png", ".png")
    with served(app, studies, tmp_path / "server.log") as server:
        check_inference(server, app, "case2", studies / "case2.png", tolerance=0)
        assert server.train(max_epochs=1)["status"] == "DONE"


def test_dicom_images_are_read_as_displayed_and_other_kinds_are_refused(app: Path, tmp_path: Path) -> None:
    studies = tmp_path / "dicom"
    studies.mkdir()
    for number, pair in enumerate(PAIRS[:2]):
        how: dict[str, Any] = {"laterality": pair.laterality, "view": pair.view, "monochrome1": number == 0}
        how["ImagerPixelSpacing"] = [0.07, 0.07]
        write_dicom(studies / f"low{number}.dcm", tall(pair.image), **how)
        write_dicom(studies / f"rec{number}.dcm", tall(pair.label), kind=Kind.SUBTRACTED, **how)
    extensions = {"MONAI_LABEL_DATASTORE_FILE_EXT": '["*.dcm","*.nii.gz"]'}
    with served(app, studies, tmp_path / "server.log", **extensions) as server:
        for number in (0, 1):
            check_inference(server, app, f"low{number}", studies / f"low{number}.dcm", tolerance=0.05)
        assert server.infer("rec0").status == 500
        assert server.logs("subtracted image")


def test_missing_and_nested_weights_are_errors_and_no_picture(app: Path, tmp_path: Path) -> None:
    studies, model = datastore(tmp_path / "png", ".png"), app / "model" / MODEL / "models" / "model.pt"
    kept = tmp_path / "kept.pt"
    shutil.move(model, kept)
    with served(app, studies, tmp_path / "missing.log") as server:
        assert server.infer("case0").status == 500
        assert server.logs("neither model.pt nor model.ts exists")
    torch.save({"network": torch.load(kept, weights_only=True), "epoch": 1}, model)
    with served(app, studies, tmp_path / "nested.log") as server:
        assert server.infer("case0").status == 500
        assert server.logs("raw state dict")
    shutil.move(kept, model)
