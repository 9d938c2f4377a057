from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data.dataloader import DataLoader
from monai.transforms.compose import Compose
from PIL import Image

from bundle.data import (
    EpochDataset,
    EpochSampler,
    caveats,
    checked_cases,
    datalist_digest,
    phantom_for,
    read_datalist,
    section_cases,
)
from tests.workflow import CONFIGS

KEYS = ("image", "label", "mask", "label_mask")
NAMES = ("patient_id", "laterality", "view", "fold")


def write_dataset(folder: Path, patients: int = 6, folds: int = 3) -> Path:
    """A correct dataset with two views a patient and a mask for every second patient."""
    random = np.random.default_rng(0)
    cases = []
    for number in range(patients):
        for view in ("CC", "MLO"):
            case: dict[str, Any] = {"patient_id": f"P{number}", "laterality": "LR"[number % 2], "view": view}
            for key in ("image", "label", "mask")[: 3 - number % 2]:
                case[key] = f"{key}/P{number}_{view}.png"
                pixels = random.integers(0, 4096, (40, 24)).astype(np.uint16)
                file = folder / case[key]
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels if key != "mask" else ((pixels > 3000) * 255).astype(np.uint8)).save(file)
            cases.append(case | {"fold": number % folds, "label_window": [2048, 4096], "info": {"density": number}})
    content = {"name": "test", "synthetic": False, "num_folds": folds, "cases": cases}
    (folder / "datalist.json").write_text(json.dumps(content))
    return folder


def configured(name: str, **options: Any) -> Any:
    """What configs/train.json has under this id, for small images and with much augmentation."""
    parser = ConfigParser()
    parser.read_config(CONFIGS / "train.json")
    parser.update({"image_size": 32, "augmentation_prob": 0.8, **options})
    return parser.get_parsed_content(name)


def pipeline(name: str = "train#preprocessing", **options: Any) -> Compose:
    steps = configured(name, **options)
    return steps if isinstance(steps, Compose) else Compose(steps)


def dataset(folder: Path, **kwargs: Any) -> EpochDataset:
    return EpochDataset(checked_cases(folder), pipeline(), seed=7, progress=False, **kwargs)


def epochs(data: EpochDataset, num_workers: int, first: int = 0, count: int = 2) -> list[dict[str, Any]]:
    sampler = EpochSampler(data, seed=7)
    loader = DataLoader(data, batch_size=5, sampler=sampler, num_workers=num_workers)
    batches = []
    for epoch in range(first, first + count):
        sampler.set_epoch(epoch)
        batches += list(loader)
    return batches


def assert_equal(one: list[dict[str, Any]], two: list[dict[str, Any]]) -> None:
    assert len(one) == len(two)
    for left, right in zip(one, two, strict=True):
        assert left.keys() == right.keys()
        for key, value in left.items():
            assert torch.equal(value, right[key]) if isinstance(value, torch.Tensor) else value == right[key]


# ------------------------------------------------------------------------------------------------ cases and folds
def test_cases_come_with_absolute_paths_and_all_their_keys(tmp_path: Path) -> None:
    case = checked_cases(write_dataset(tmp_path))[0]
    assert case["image"] == str(tmp_path.resolve() / "image/P0_CC.png")
    assert case["patient_id"] == "P0"
    assert case["info"] == {"density": 0}
    assert "label_mask" not in case


def test_sections_split_the_patients_in_test_validation_and_training(tmp_path: Path) -> None:
    cases = checked_cases(write_dataset(tmp_path, patients=10, folds=5))
    for fold in range(5):
        parts = {name: section_cases(cases, fold, name) for name in ("training", "validation", "test")}
        patients = {name: {case["patient_id"] for case in part} for name, part in parts.items()}
        assert sum(map(len, parts.values())) == len(cases)
        assert len(set.union(*patients.values())) == sum(map(len, patients.values()))
        assert {case["fold"] for case in parts["test"]} == {fold}
        assert {case["fold"] for case in parts["validation"]} == {(fold + 1) % 5}


@pytest.mark.parametrize(
    ("fold", "section", "message"),
    [(3, "test", "fold is 3, expected 0 to 2"), (0, "train", "section is 'train'"), (1, "test", "no case in the test")],
)
def test_a_wrong_or_empty_section_is_an_error_with_a_remedy(fold: int, section: str, message: str) -> None:
    cases = [{"fold": 0, "patient_id": "a"}, {"fold": 2, "patient_id": "b"}]
    with pytest.raises(ValueError, match=message):
        section_cases(cases, fold, section)


def test_cases_without_folds_are_all_test_cases_and_cannot_be_trained_on() -> None:
    cases = [{"patient_id": "a"}, {"patient_id": "b"}]
    assert section_cases(cases, 7, "test") == cases
    for section in ("training", "validation"):
        with pytest.raises(ValueError, match=rf"no folds: .* without a {section} section.*--folds 10.*--external_dir"):
            section_cases(cases, 0, section)
    with pytest.raises(ValueError, match=r"1 of 3 cases have no fold, first c\.png"):
        section_cases([{"fold": 0}, {"fold": 1}, {"image": "c.png"}], 0, "test")


def test_every_use_of_leaking_folds_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_dataset(tmp_path) / "datalist.json"
    content = json.loads(path.read_text()) | {"allow_leak": True}
    content["cases"][0]["fold"] = 2
    path.write_text(json.dumps(content))
    for _ in range(2):
        caplog.clear()
        assert len(checked_cases(tmp_path)) == 12
        assert "'test' has LEAKING FOLDS (allow_leak; 1 of 6 patients are in several folds)" in caplog.text
    assert len(caveats(tmp_path)) == 1


def test_a_test_on_external_data_has_the_caveats_of_both_data_sets(tmp_path: Path) -> None:
    for name, top in (("training", {"synthetic": True}), ("external", {}), ("leaking", {"allow_leak": True})):
        path = write_dataset(tmp_path / name) / "datalist.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"name": name} | top))
    training, external, leaking = (tmp_path / name for name in ("training", "external", "leaking"))
    assert caveats(external) == []
    assert caveats(training, external) == caveats(training)
    assert caveats(training, leaking) == caveats(leaking) + caveats(training)
    assert caveats(training, training) == caveats(training)


@pytest.mark.parametrize("content", [None, "not json", "[]", '{"cases": 5}'])
def test_an_unreadable_datalist_is_an_error_that_names_it(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "datalist.json").write_text(content)
    with pytest.raises(ValueError, match=r"datalist\.json"):
        read_datalist(tmp_path)


def test_bad_data_end_with_exit_code_1_and_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(tmp_path)
    (tmp_path / "image/P0_CC.png").unlink()
    (tmp_path / "label/P1_CC.png").write_text("not an image")
    with pytest.raises(SystemExit) as stop:
        checked_cases(tmp_path)
    assert stop.value.code == 1
    table = capsys.readouterr().err
    assert "image/P0_CC.png" in table
    assert "label/P1_CC.png" in table
    assert "2 errors" in table


# ------------------------------------------------------------------------------------------------ phantom
PHANTOM = {"patients": 3, "size": 32, "num_folds": 3, "workers": 1, "progress": False}


def test_the_phantom_is_made_once_and_announced_as_synthetic(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "phantom"
    cases = checked_cases(folder, PHANTOM)
    assert "SYNTHETIC" in capsys.readouterr().err
    written = (folder / "datalist.json").stat().st_mtime_ns
    assert checked_cases(folder, PHANTOM) == cases
    assert "SYNTHETIC" not in capsys.readouterr().err
    assert (folder / "datalist.json").stat().st_mtime_ns == written
    assert not (folder.parent / ".phantom.partial").exists()


@pytest.mark.parametrize("synthetic", [True, False])
def test_every_use_of_synthetic_data_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture, synthetic: bool) -> None:
    path = write_dataset(tmp_path) / "datalist.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"synthetic": synthetic}))
    checked_cases(tmp_path)
    assert ("SYNTHETIC" in caplog.text) == synthetic


def test_a_folder_with_other_files_is_never_filled_with_the_phantom(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_image.png").write_bytes(b"precious")
    with pytest.raises(SystemExit):
        checked_cases(tmp_path, PHANTOM)
    assert "prepare_data.py" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["my_image.png"]


def test_trainings_started_together_make_one_phantom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _: checked_cases(tmp_path / "phantom", PHANTOM), range(3)))
    assert results[0] == results[1] == results[2]
    assert capsys.readouterr().err.count("SYNTHETIC") == 1


def test_the_phantom_belongs_in_one_folder_however_it_is_spelt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    for spelt in ("data/phantom", "./data/phantom/", tmp_path / "data" / "phantom", "link/data/phantom"):
        assert phantom_for(spelt, ".", patients=3, size=32) == {"patients": 3, "size": 32}
        assert phantom_for(spelt, tmp_path / "bundle" / "..", seed=1) == {"seed": 1}
        assert phantom_for(spelt, tmp_path / "bundle", seed=1) is None
    assert phantom_for("data/phantom2", ".", patients=3) is None
    assert phantom_for("data", ".", patients=3) is None


def test_the_digest_is_that_of_the_datalist_as_it_lies_there(tmp_path: Path) -> None:
    assert datalist_digest(tmp_path / "nowhere") is None
    assert datalist_digest(tmp_path) is None
    write_dataset(tmp_path)
    content = (tmp_path / "datalist.json").read_bytes()
    assert datalist_digest(tmp_path) == hashlib.sha256(content).hexdigest()
    (tmp_path / "datalist.json").write_bytes(content + b" ")
    assert datalist_digest(tmp_path) != hashlib.sha256(content).hexdigest()


# ------------------------------------------------------------------------------------------------ repeatable epochs
def test_batches_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    data = dataset(write_dataset(tmp_path))
    assert_equal(epochs(data, num_workers=0), epochs(data, num_workers=2))


def test_a_later_epoch_is_the_same_after_a_resume(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path)
    whole = epochs(dataset(folder), 0, first=0, count=3)
    assert_equal(whole[-3:], epochs(dataset(folder), 0, first=2, count=1))


def test_epochs_differ_in_order_and_augmentation(tmp_path: Path) -> None:
    data = dataset(write_dataset(tmp_path))
    first, second = epochs(data, 0, 0, 1), epochs(data, 0, 1, 1)
    assert [batch["patient_id"] for batch in first] != [batch["patient_id"] for batch in second]
    assert not torch.equal(data[(0, 3)]["image"], data[(1, 3)]["image"])
    assert torch.equal(data[3]["image"], data[(0, 3)]["image"])
    assert torch.equal(data[-1]["image"], data[len(data) - 1]["image"])


def test_cached_items_are_not_altered_and_equal_uncached_ones(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path)
    cached, uncached = dataset(folder), dataset(folder, cache_rate=0.0)
    assert_equal(epochs(cached, 0), epochs(uncached, 0))
    assert_equal(epochs(cached, 0), epochs(uncached, 0))


def test_what_a_caller_does_to_an_item_does_not_reach_the_cache(tmp_path: Path) -> None:
    data = dataset(write_dataset(tmp_path))
    first = data[0]
    kept = {key: value.clone() for key, value in first.items() if isinstance(value, torch.Tensor)}
    for key in kept:
        data[0][key].zero_()
    assert all(torch.equal(data[0][key], value) for key, value in kept.items())


def test_the_augmentation_is_that_of_a_compose_with_the_seed_of_the_item(tmp_path: Path) -> None:
    data = dataset(write_dataset(tmp_path))
    for epoch, index in ((0, 0), (1, 3), (2, 1)):
        steps = pipeline()
        steps.set_random_state(int(np.random.SeedSequence([7, epoch, index]).generate_state(1)[0]))
        assert torch.equal(steps(dict(data.data[index]))["image"], data[(epoch, index)]["image"])


def test_batches_are_the_same_when_the_device_moves_them(tmp_path: Path) -> None:
    cases = checked_cases(write_dataset(tmp_path))
    data = EpochDataset(cases, pipeline(augment_on_device=True), seed=7, progress=False)
    move = configured("train#prepare_batch", augment_on_device=True)
    for plain, deferred in zip(epochs(dataset(tmp_path), 0), epochs(data, 2), strict=True):
        image, label = move(deferred, torch.device("cpu"))
        torch.testing.assert_close(image, plain["image"], atol=1e-5, rtol=0)
        torch.testing.assert_close(label, plain["label"], atol=1e-5, rtol=0)
        assert all(torch.equal(deferred[key], plain[key]) for key in ("mask", "label_mask"))
        assert deferred["patient_id"] == plain["patient_id"]


def test_another_seed_augments_differently(tmp_path: Path) -> None:
    cases = checked_cases(write_dataset(tmp_path))
    one, two = (EpochDataset(cases, pipeline(), seed=seed, progress=False) for seed in (1, 2))
    assert any(not torch.equal(one[index]["image"], two[index]["image"]) for index in range(len(cases)))


def test_a_batch_holds_images_masks_and_names(tmp_path: Path) -> None:
    batch = epochs(dataset(write_dataset(tmp_path)), 0, count=1)[0]
    assert set(batch) == {*KEYS, *NAMES}
    for key in KEYS:
        assert batch[key].shape == (5, 1, 32, 32)
        assert batch[key].dtype == torch.float32
        assert 0 <= batch[key].min() <= batch[key].max() <= 1
    assert all(isinstance(name, str) for name in batch["patient_id"])


def test_label_items_of_image_and_label_alone_form_batches(tmp_path: Path) -> None:
    cases = [{key: case[key] for key in ("image", "label")} for case in checked_cases(write_dataset(tmp_path))]
    batch = epochs(EpochDataset(cases, pipeline(), progress=False), 0, count=1)[0]
    assert set(batch) == set(KEYS)
    assert not batch["mask"].any()


def test_cases_with_and_without_masks_form_batches_with_metadata_too(tmp_path: Path) -> None:
    transform = pipeline("train#deterministic_transforms")
    batch = epochs(EpochDataset(checked_cases(write_dataset(tmp_path)), transform, progress=False), 0, count=1)[0]
    assert batch["mask"].shape == (5, 1, 32, 32)


def test_slices_and_no_items_work_as_in_monai(tmp_path: Path) -> None:
    data = dataset(write_dataset(tmp_path))
    assert len(data[2:5]) == 3
    assert torch.equal(data[2:5][0]["image"], data[2]["image"])
    assert list(EpochSampler(EpochDataset([], pipeline(), progress=False))) == []


def test_an_index_beyond_the_end_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(IndexError):
        dataset(write_dataset(tmp_path))[(0, 99)]


# ------------------------------------------------------------------------------------------------ sampler
@pytest.mark.parametrize("replicas", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("length", [1, 5, 12])
def test_processes_get_equally_many_items_and_together_all(length: int, replicas: int) -> None:
    samplers = [EpochSampler(range(length), 3, num_replicas=replicas, rank=rank) for rank in range(replicas)]
    shares = [[index for _, index in sampler] for sampler in samplers]
    assert {len(share) for share in shares} == {len(samplers[0])}
    assert {index for share in shares for index in share} == set(range(length))


def test_one_process_sees_every_item_once_in_an_order_of_the_epoch() -> None:
    sampler = EpochSampler(range(50), seed=1)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        numbers, indices = zip(*sampler, strict=True)
        assert set(numbers) == {epoch}
        assert sorted(indices) == list(range(50))
        orders.append(indices)
    assert orders[0] == orders[2] != orders[1]
    assert [index for _, index in EpochSampler(range(4), shuffle=False)] == [0, 1, 2, 3]
