"""Lists, tables, checkpoints, archives and results from elsewhere: refused by name, and nothing in them runs."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pytest
import torch

from bundle.checkpoint import load_networks
from bundle.data import read_datalist
from bundle.exports import recorded, stale_reason
from bundle.overrides import unknown_ids
from bundle.preflight import check_datalist
from bundle.saved_state import load_saved
from bundle.weights import load_weights
from scripts.evidence.report_load import read_evidence
from scripts.federated.extract import global_weights
from scripts.fuzzing.inputs_checkpoint import _CALLS, _Call, _expanding, _false_sizes, _repacked, _saved, _with_pickle
from scripts.fuzzing.small_trainer import network_of, saver, trainer
from scripts.prepare.annotations import read_table
from scripts.prepare.regions import read_regions
from scripts.prepare.ucbm_lists import read_lists
from scripts.report import main as report

WHOLE = _saved({"a": torch.zeros(3)})
READERS: dict[str, Callable[[Path], object]] = {
    "model.pt": lambda path: load_weights(network_of("network"), path),
    "best_networks.pt": lambda path: load_networks(trainer(), path),
    "checkpoint.pt": lambda path: saver(path).restore(trainer()),
    "FL_global_model.pt": global_weights,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("call", _CALLS, ids=lambda call: ".".join(call[:2]))
def test_code_in_a_checkpoint_does_not_run(
    name: str, call: tuple[str, str, tuple[object, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # the calls would make ../escaped
    path = tmp_path / "here" / name
    for content in (_with_pickle(_Call(*call).pickled(2)), _Call(*call).pickled(2)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=name):
            READERS[name](path)
    assert [file.name for file in tmp_path.iterdir()] == ["here"]


HOSTILE: dict[str, Callable[[], bytes]] = {
    "compressed": lambda: _repacked(WHOLE, {"0": bytes(2**20)}, compressed=True),
    "larger than the file": lambda: _false_sizes(WHOLE, 2**31),
    "expand": lambda: _with_pickle(_expanding(60)),
    "not all there": lambda: _saved({"a": torch.zeros(1).expand(10**6, 10**6)}),
    "torch 1.6": lambda: _saved({"a": torch.zeros(3)}, legacy=True),
    "sparse": lambda: _saved({"a": torch.eye(3).to_sparse()}),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_checkpoint_that_expands_is_refused_before_it_is_read(kind: str, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(HOSTILE[kind]())
    with pytest.raises(ValueError, match=r"model\.pt cannot be read"):
        load_saved(tmp_path / "model.pt")


def test_a_sound_file_comes_back_as_it_was(tmp_path: Path) -> None:
    content = {"a": torch.arange(4.0), "b": [(3, (1, 2)), None, 2.5, "x"], "c": {1: torch.zeros(0)}}
    torch.save(content, tmp_path / "a.pt")
    found = load_saved(tmp_path / "a.pt")
    assert found["b"] == content["b"]
    assert torch.equal(found["a"], torch.arange(4.0))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000])
def test_json_that_is_nested_too_deep_is_no_datalist(text: str, tmp_path: Path) -> None:
    (tmp_path / "datalist.json").write_text(text)
    assert "not readable as JSON" in check_datalist(tmp_path, progress=False)[0].problem
    with pytest.raises(ValueError, match="no readable datalist"):
        read_datalist(tmp_path)


@pytest.mark.parametrize("name", ["a\0.png", "\ud800.png", "x" * 300 + ".png", "y/" * 3000, "/dev/zero", "."])
def test_a_path_that_is_none_is_a_problem_of_its_case(name: str, tmp_path: Path) -> None:
    case = {"image": name, "label": "b.png", "patient_id": "P", "laterality": "L", "view": "CC"}
    content = {"name": "x", "synthetic": True, "cases": [case]}
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    assert any(one.case.startswith("#0") and "image" in one.problem for one in check_datalist(tmp_path, progress=False))


def test_an_xlsx_with_one_cell_far_out_takes_no_room_for_those_before_it(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.title = "all"  # type: ignore[union-attr]
    book.save(tmp_path / "small.xlsx")
    sheet = '<row r="1"><c r="XFD1"><v>1</v></c></row><row r="1048576"><c r="A1048576"><v>1</v></c></row>'
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    text = f'<worksheet xmlns="{space}"><sheetData>{sheet}</sheetData></worksheet>'
    content = _repacked((tmp_path / "small.xlsx").read_bytes(), {"sheet1.xml": text.encode()})
    (tmp_path / "table.xlsx").write_bytes(content)
    with pytest.raises(ValueError, match=r"table\.xlsx cannot be read as xlsx \(more than 100000 rows\)"):
        read_table(tmp_path / "table.xlsx")
    padded = _repacked(content, {"sheet1.xml": text.encode() + b" " * 2**27}, compressed=True)
    (tmp_path / "table.xlsx").write_bytes(padded)
    with pytest.raises(ValueError, match="unpacks to"):
        read_table(tmp_path / "table.xlsx")


def test_tables_with_cells_that_are_too_large_or_too_deep_have_a_name(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("id\timg_x\timg_y\tr_l\twc_x\tww_x\twc_y\tww_y\n" + "x" * 200_000)
    with pytest.raises(ValueError, match=r"list\.txt is no list"):
        read_lists(tmp_path / "list.txt")
    (tmp_path / "regions.csv").write_text(f'filename,region_count,region_shape_attributes\na.jpg,1,"{"[" * 50_000}"\n')
    assert len(read_regions(tmp_path / "regions.csv").broken) == 1


def test_an_export_that_cannot_be_read_says_nothing_of_its_weights(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"")
    for content in (_record(b"[]"), _record(b"{}", locked=True), _record(b" " * 2**24), b"PK\x05\x06" + bytes(18)):
        (tmp_path / "model.ts").write_bytes(content)
        assert recorded(tmp_path / "model.ts") is None
        assert "does not say" in str(stale_reason(tmp_path / "model.pt"))


def _record(text: bytes, locked: bool = False) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/extra/export.json", text)
    content = bytearray(out.getvalue())
    content[content.find(b"PK\x01\x02") + 8] |= locked  # encrypted
    return bytes(content)


FIGURES = {"cases": 1, "patients": 1, "lesions": 0, "metrics": {"psnr": {"value": 1.0, "low": 0.0, "high": 2.0}}}


def write_run(folder: Path, **changed: str) -> None:
    folder.mkdir()
    files = {"summary.json": json.dumps({"predictors": {"model": FIGURES}}), "run.json": "{}"}
    files["cases.csv"] = "predictor,patient_id,laterality,view,picture,psnr\nmodel,P,L,CC,,1\n"
    files |= {name.replace("_", "."): text for name, text in changed.items()}
    for name, text in files.items():
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    "changed",
    [
        {"summary_json": "[" * 100_000},
        {"summary_json": '{"predictors": {"model": {"metrics": []}}}'},
        {"run_json": '{"settings": [1], "seed": 0, "versions": {}}'},
        {"cases_csv": "predictor,patient_id,picture,psnr\nmodel,P,x,y\n"},
    ],
)
def test_results_that_are_none_are_named_by_the_report(
    changed: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run", **changed)
    assert report([str(tmp_path / "run"), "-o", str(tmp_path / "page.html")]) == 2
    assert str(tmp_path / "run") in capsys.readouterr().err


def test_the_report_shows_no_picture_from_outside_the_run(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("L", (8, 4), 77).save(tmp_path / "secret.png")
    for name in ("../secret.png", str(tmp_path / "secret.png"), "x" * 5000, "a\0b"):
        write_run(
            tmp_path / "run", cases_csv=f"predictor,patient_id,laterality,view,picture,psnr\nmodel,P,L,CC,{name},1\n"
        )
        evidence = read_evidence(tmp_path / "run")
        from scripts.evidence.report_cases import browser

        assert browser(evidence, 4) is None or not browser(evidence, 4).examples  # type: ignore[union-attr]
        for file in (tmp_path / "run").iterdir():
            file.unlink()
        (tmp_path / "run").rmdir()


def test_the_name_of_an_override_does_not_take_for_ever() -> None:
    name = "#" * 5000
    assert unknown_ids({name: 1, "b": "@a"}, {"b"}) == [name]


def test_weights_whose_names_are_numbers_are_none(tmp_path: Path) -> None:
    torch.save({"model": {3: torch.zeros(1)}}, tmp_path / "global.pt")
    with pytest.raises(ValueError, match=r"global\.pt holds no weights under 'model'"):
        global_weights(tmp_path / "global.pt")
