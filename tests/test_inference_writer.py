"""A folder of low-energy images becomes a folder of virtual DES, whatever lies in it."""

from __future__ import annotations

import contextlib
import csv
import logging
import re
import time
from pathlib import Path
from typing import Any

import itk
import nibabel
import numpy as np
import pytest
import torch
from ignite.engine import Engine, State
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose, EnsureChannelFirstd, Invertd, Lambdad, LoadImaged
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from bundle.inference import ReadAheadLoader, TolerantDataset, VirtualDESWriter, find_images
from bundle.inference.report import Report
from bundle.reader import read_pixels
from bundle.transforms import FitSquared, ScaleMammogramd

SIZE = 16


def to_255(image: Tensor) -> Tensor:
    return image * 255


def grey(width: int, height: int, dtype: type[np.generic] = np.uint8, top: int = 255) -> NDArray[Any]:
    """A (rows, columns) ramp from 0 to ``top`` that is brighter at the left: a left breast."""
    row = np.linspace(top, 0, width)
    return np.repeat(row[None], height, axis=0).astype(dtype)


def preprocessing() -> Compose:
    return Compose(
        [
            LoadImaged("image", reader="bundle.reader.MammogramReader", image_only=True),
            EnsureChannelFirstd("image"),
            ScaleMammogramd("image", "minmax"),
            FitSquared("image", SIZE),
        ]
    )


def run_inference(
    dataset_dir: Path, output_dir: Path, workers: int = 0, batch_size: int = 3, network: nn.Module | None = None
) -> VirtualDESWriter:
    """The parts of configs/inference.json, with a network that copies its input."""
    steps = preprocessing()
    writer = VirtualDESWriter(dataset_dir, output_dir)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=ReadAheadLoader(
            dataset=TolerantDataset(writer.pending, steps), batch_size=batch_size, num_workers=workers
        ),
        network=network or nn.Identity(),
        postprocessing=Compose(
            [
                Invertd("pred", transform=steps, orig_keys="image", nearest_interp=False),
                Lambdad("pred", to_255),
            ]
        ),
        val_handlers=[writer],
    )
    evaluator.run()
    with contextlib.suppress(SystemExit):  # raised where an image failed, after everything was written
        writer.close()
    return writer


def report(output_dir: Path) -> dict[str, dict[str, str]]:
    with (output_dir / "report.csv").open(newline="", encoding="utf-8") as file:
        return {row["image"]: row for row in csv.DictReader(file)}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Six good images of six kinds and sizes, four that cannot be converted, and files that are no images."""
    root = tmp_path / "LE"
    (root / "b" / "c").mkdir(parents=True)
    Image.fromarray(grey(20, 30)).save(root / "a.png")
    Image.fromarray(grey(12, 31, np.uint16, 4095)).save(root / "b" / "a.png")
    Image.fromarray(grey(25, 40, np.float32, 1)).save(root / "b" / "f.TIF")
    Image.fromarray(grey(40, 24)).save(root / "b" / "j.jpg")
    affine = np.diag([-1.0, 2, 1, 1])
    nibabel.save(nibabel.Nifti1Image(grey(18, 22, np.int16, 900).T[..., None], affine), root / "b" / "c" / "n.nii.gz")
    itk.imwrite(itk.image_from_array(grey(33, 21, np.uint16, 4000)[None]), str(root / "m.mha"))
    (root / "b" / "cut.png").write_bytes((root / "a.png").read_bytes()[:60])
    (root / "b" / "text.mha").write_text("not an image")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 9, 3), np.uint8)).save(root / "colour.png")
    (root / "x.dcm").write_bytes(bytes(128) + b"DICM")
    (root / "notes.txt").write_text("no image")
    (root / "README").write_text("no image")
    (root / ".thumb.png").write_bytes(b"no image")
    return root


@pytest.mark.parametrize("workers", [0, 1])
def test_good_images_are_written_on_their_grid_and_broken_ones_are_named(
    archive: Path, tmp_path: Path, workers: int
) -> None:
    out = tmp_path / "out"
    writer = run_inference(archive, out, workers)
    rows = report(out)
    done = {name: row["output"] for name, row in rows.items() if row["status"] == "done"}
    assert done == {
        "a.png": "a_virtual_des.png",
        "b/a.png": "b/a_virtual_des.png",
        "b/c/n.nii.gz": "b/c/n_virtual_des.nii.gz",
        "b/f.TIF": "b/f_virtual_des.TIF",
        "b/j.jpg": "b/j_virtual_des.jpg",
        "m.mha": "m_virtual_des.mha",
    }
    assert {name for name, row in rows.items() if row["status"] == "failed"} == {
        "b/cut.png", "b/text.mha", "colour.png", "x.dcm",
    }  # fmt: skip
    assert all(row["reason"] for row in rows.values() if row["status"] == "failed")
    assert "colour" in rows["colour.png"]["reason"]
    assert writer.report.counts == {"done": 6, "skipped": 0, "refused": 0, "failed": 4}
    assert sum(path.is_file() for path in out.rglob("*")) == len(done) + 1
    for name, output in done.items():
        before, after = read_pixels(archive / name), read_pixels(out / output)
        assert after.shape == before.shape
        top = 1 if after.dtype == np.float32 else np.iinfo(after.dtype).max
        # the network copies, so the source's ramp comes back over the whole range; only the square's corners blur
        ramp = (before - before.min()) / np.ptp(before.astype(float))
        inner = (slice(3, -3), slice(3, -3))
        np.testing.assert_allclose(after[inner] / top, ramp[inner], atol=0.06)


def test_a_second_run_skips_what_exists_and_makes_what_is_missing(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_inference(archive, out)
    kept = out / "a_virtual_des.png"
    kept.write_bytes(b"from before")
    (out / "b" / "j_virtual_des.jpg").unlink()
    writer = run_inference(archive, out)
    assert writer.report.counts == {"done": 1, "skipped": 5, "refused": 0, "failed": 4}
    assert kept.read_bytes() == b"from before"
    assert report(out)["b/j.jpg"]["status"] == "done"
    assert report(out)["a.png"] == {
        "image": "a.png", "status": "skipped", "output": "a_virtual_des.png", "reason": "the result exists already",
    }  # fmt: skip


def test_a_run_with_nothing_to_do_still_leaves_a_report(tmp_path: Path) -> None:
    Image.fromarray(grey(8, 8)).save(tmp_path / "a.png")
    run_inference(tmp_path, tmp_path / "out")
    (tmp_path / "out" / "report.csv").unlink()
    with pytest.warns(UserWarning, match="dataloader.* is empty"):
        run_inference(tmp_path, tmp_path / "out")
    assert report(tmp_path / "out")["a.png"]["status"] == "skipped"


def test_results_beside_their_sources_are_not_inputs_of_the_next_run(tmp_path: Path) -> None:
    Image.fromarray(grey(8, 8)).save(tmp_path / "a.1.png")
    run_inference(tmp_path, tmp_path)
    assert (tmp_path / "a.1_virtual_des.png").is_file()
    assert find_images(tmp_path) == [tmp_path / "a.1.png"]


def test_one_file_may_stand_for_the_folder(tmp_path: Path) -> None:
    Image.fromarray(grey(8, 9)).save(tmp_path / "a.png")
    Image.fromarray(grey(8, 9)).save(tmp_path / "b.png")
    assert run_inference(tmp_path / "a.png", tmp_path / "out").report.counts["done"] == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_virtual_des.png", "report.csv"]


def test_a_file_of_an_unknown_kind_given_by_name_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_text("x")
    writer = VirtualDESWriter(tmp_path / "a.docx", tmp_path / "out")
    assert writer.pending == []
    with pytest.raises(SystemExit, match="1"):
        writer.close()
    assert writer.report.counts["failed"] == 1
    assert "unknown suffix '.docx'; expected DICOM or .png" in report(tmp_path / "out")["a.docx"]["reason"]


def test_images_are_found_at_any_depth_in_order(archive: Path) -> None:
    found = [str(path.relative_to(archive)) for path in find_images(archive)]
    assert found == [
        "a.png", "b/a.png", "b/c/n.nii.gz", "b/cut.png", "b/f.TIF", "b/j.jpg", "b/text.mha", "colour.png",
        "m.mha", "x.dcm",
    ]  # fmt: skip


def test_dicom_files_are_found_without_a_suffix_or_with_a_uid_for_a_name(tmp_path: Path) -> None:
    for name in ("IM0001", "1.2.840.10008.1"):
        (tmp_path / name).write_bytes(bytes(128) + b"DICM")
    assert len(find_images(tmp_path)) == 2


def test_an_empty_folder_is_an_error_that_names_the_kinds_of_file(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(
        FileNotFoundError, match=r"no image in .*expected DICOM files, or files ending in \.png .*\.dcm"
    ):
        find_images(tmp_path)


def test_a_missing_folder_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="set dataset_dir"):
        VirtualDESWriter(tmp_path / "nowhere", tmp_path).pending  # noqa: B018


def test_an_error_in_the_transforms_themselves_stops_the_run(tmp_path: Path) -> None:
    """A pipeline that fails on any image is a mistake in the config, not a broken file."""
    Image.fromarray(grey(8, 8)).save(tmp_path / "a.png")
    steps = Compose([LoadImaged("image"), Lambdad("image", lambda image: image + "a")])
    dataset = TolerantDataset([{"image": str(tmp_path / "a.png")}], steps)
    with pytest.raises(RuntimeError):
        dataset[0]


def test_a_prediction_that_cannot_be_written_is_reported_and_the_rest_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "ab":
        Image.fromarray(grey(8, 8)).save(tmp_path / f"{name}.png")
    writer = VirtualDESWriter(tmp_path, tmp_path / "out")
    engine = Engine(lambda _engine, _batch: None)
    writer.start()
    batch = [{"source": str(tmp_path / f"{name}.png"), "failure": ""} for name in "ab"]
    bad, good = torch.full((1, 8, 8), torch.nan), torch.zeros(1, 8, 8)
    engine.state = State(batch=batch, output=[{"pred": bad}, {"pred": good}])
    with caplog.at_level(logging.WARNING):
        writer(engine)
        with pytest.raises(SystemExit):
            writer.close()
    assert [row["status"] for row in report(tmp_path / "out").values()] == ["failed", "done"]
    assert "NaN or infinite" in caplog.text


class Slow(nn.Module):
    """A network that copies its input, and fails at one image."""

    def __init__(self, fails_at: int = -1) -> None:
        super().__init__()
        self.calls, self.fails_at = 0, fails_at

    def forward(self, image: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.fails_at:
            raise RuntimeError("out of memory")
        return image


def test_images_that_were_done_before_an_error_of_the_network_are_reported(tmp_path: Path) -> None:
    for number in range(6):
        Image.fromarray(grey(8, 8)).save(tmp_path / f"{number}.png")
    with pytest.raises(RuntimeError, match="out of memory"):
        run_inference(tmp_path, tmp_path / "out", network=Slow(fails_at=5), batch_size=1)
    rows = report(tmp_path / "out")
    assert {name: row["status"] for name, row in rows.items()} == {f"{number}.png": "done" for number in range(4)}
    assert all((tmp_path / "out" / row["output"]).is_file() for row in rows.values())


def test_the_report_has_the_order_of_the_images_and_the_log_says_how_quickly_they_were_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(7):
        Image.fromarray(grey(8, 8)).save(tmp_path / f"{number}.png")
    with caplog.at_level(logging.INFO):
        writer = run_inference(tmp_path, tmp_path / "out", batch_size=2)
    assert list(report(tmp_path / "out")) == [f"{number}.png" for number in range(7)]
    assert re.search(r"7 images in .* images/s; of .* decoding \d+%, model \d+%, encoding \d+%", caplog.text)
    assert min(writer.speed.decoding, writer.speed.model, writer.speed.encoding) > 0


def test_no_more_than_a_few_images_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading and writing wait for each other: images read, less images written, stay few."""
    for number in range(12):
        Image.fromarray(grey(8, 8)).save(tmp_path / f"{number:02d}.png")
    alive: list[int] = [0]
    most: list[int] = [0]
    real_read, real_write = TolerantDataset._transform, VirtualDESWriter.write

    def read(self: TolerantDataset, index: int) -> Any:
        alive[0] += 1
        most[0] = max(most[0], alive[0])
        return real_read(self, index)

    def write(self: VirtualDESWriter, item: Any, output: Any) -> Any:
        time.sleep(0.02)
        row = real_write(self, item, output)
        alive[0] -= 1
        return row

    monkeypatch.setattr(TolerantDataset, "_transform", read)
    monkeypatch.setattr(VirtualDESWriter, "write", write)
    run_inference(tmp_path, tmp_path / "out", batch_size=1)
    assert most[0] <= 5  # one read ahead and one coming, one at the network, two to be written


def test_an_error_while_the_report_is_written_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        Image.fromarray(grey(8, 8)).save(tmp_path / f"{number}.png")
    real = Report.add

    def add(self: Report, rows: Any) -> None:
        rows = list(rows)
        if rows:
            raise OSError("no space left on device")
        real(self, rows)

    monkeypatch.setattr(Report, "add", add)
    with pytest.raises(OSError, match="no space left"):
        run_inference(tmp_path, tmp_path / "out")


def test_the_summary_gives_the_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(grey(8, 8)).save(tmp_path / "a.png")
    writer = VirtualDESWriter(tmp_path, tmp_path / "out")
    writer.report.counts.update(done=3)
    with caplog.at_level(logging.INFO):
        assert writer.close() == {"done": 3, "skipped": 0, "refused": 0, "failed": 0}
    assert caplog.records[-1].levelno == logging.INFO
    assert "3 done, 0 skipped, 0 refused, 0 failed" in caplog.text


def test_a_failed_image_makes_the_summary_a_warning_and_the_exit_code_1(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.fromarray(grey(8, 8)).save(tmp_path / "a.png")
    writer = VirtualDESWriter(tmp_path, tmp_path / "out")
    writer.report.counts.update(done=3, failed=2)
    with pytest.raises(SystemExit) as stop:
        writer.close()
    assert stop.value.code == 1
    assert caplog.records[-1].levelno == logging.WARNING
    assert "3 done, 0 skipped, 0 refused, 2 failed" in caplog.text
