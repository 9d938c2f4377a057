"""The report as a person uses it, in a real browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from scripts import report
from tests.report_study import write_study

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

DESKTOP = {"width": 1300, "height": 1000}
PHONE = {"width": 390, "height": 844}


def unavailable(what: str) -> NoReturn:
    """Skip on a machine without a browser, but fail in continuous integration, where one has to be."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is missing, and CI is set: the report must be tried in a browser there")
    pytest.skip(f"{what} is not on this machine")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        unavailable("playwright")
    executable = shutil.which("chromium")
    if executable is None:
        unavailable("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page about a study of 3 arms, 2 folds and 8 cases."""
    folder = tmp_path_factory.mktemp("report")
    assert report.main([str(write_study(folder / "study")), "-o", str(folder / "report.html")]) == 0
    return folder / "report.html"


class Opened:
    """A page in a tab, with what it complained about and what it asked for."""

    def __init__(self, tab: Page, path: Path) -> None:
        self.tab = tab
        self.problems: list[str] = []
        self.asked: list[str] = []
        tab.on("console", lambda message: self.problems.append(message.text))
        tab.on("pageerror", lambda error: self.problems.append(str(error)))
        tab.on("request", lambda request: self.asked.append(request.url))
        tab.goto(path.as_uri())
        tab.wait_for_selector(".frame[data-case]")

    def part(self, name: str) -> Locator:
        return self.tab.locator(f'[data-part="{name}"]')

    def facet(self, name: str) -> Locator:
        return self.tab.locator(f'[data-facet="{name}"]')

    @property
    def names(self) -> list[str]:
        return self.part("list").locator("button").all_text_contents()

    @property
    def shown(self) -> str:
        """The case of the pictures, once they are those of the case in the title."""
        title = self.part("title").text_content() or ""
        self.tab.wait_for_selector(f'.frame[data-case="{title}"]')
        return title

    def clip(self, layer: str) -> str:
        found: str = self.tab.locator(f'[data-layer="{layer}"]').evaluate("one => getComputedStyle(one).clipPath")
        return found

    def pixels(self, layer: str) -> list[int]:
        """Red, green and blue of the middle of a picture."""
        found: list[int] = self.tab.locator(f'[data-layer="{layer}"] canvas').evaluate(
            """one => {
              const copy = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
              copy.drawImage(one, -(one.width >> 1), -(one.height >> 1));
              return [...copy.getImageData(0, 0, 1, 1).data].slice(0, 3);
            }"""
        )
        return found


@pytest.fixture
def opened(chromium: Browser, written: Path) -> Iterator[Opened]:
    with chromium.new_context(viewport=DESKTOP) as context:  # type: ignore[arg-type]
        opened = Opened(context.new_page(), written)
        yield opened
        assert opened.problems == []
        assert [url for url in opened.asked if not url.startswith("data:")] == [written.as_uri()]


def test_a_browser_is_a_must_where_ci_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="chromium is missing"):
        unavailable("chromium")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="chromium is not on this machine"):
        unavailable("chromium")


def test_the_page_opens_from_a_file_with_a_case_on_the_stage(opened: Opened, tmp_path: Path) -> None:
    assert len(opened.names) == 8
    assert opened.shown == opened.names[0]
    assert opened.part("count").text_content() == "8 of 8 cases"
    opened.tab.screenshot(path=tmp_path / "desktop.png", full_page=True)


def test_the_policy_of_the_page_stops_scripts_that_are_slipped_in_and_requests(
    chromium: Browser, written: Path
) -> None:
    with chromium.new_context() as context:
        opened = Opened(context.new_page(), written)
        opened.tab.evaluate(
            """() => {
              const script = document.createElement("script");
              script.textContent = "window.slipped = true";
              document.body.append(script);
              document.body.insertAdjacentHTML("beforeend", "<img src='https://example.org/a.png'>");
            }"""
        )
        opened.tab.wait_for_timeout(200)
        assert opened.tab.evaluate("window.slipped") is None
        assert len(opened.problems) == 2
        assert all("Content Security Policy" in problem for problem in opened.problems)


def test_a_divider_moves_with_the_mouse(opened: Opened) -> None:
    divider = opened.tab.get_by_role("slider", name="Divider between real and virtual DES")
    divider.scroll_into_view_if_needed()
    before, box = opened.clip("virtual"), divider.bounding_box()
    assert box is not None
    at = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    opened.tab.mouse.move(*at)
    opened.tab.mouse.down()
    opened.tab.mouse.move(at[0] - 40, at[1], steps=4)
    opened.tab.mouse.up()
    opened.tab.mouse.move(at[0] + 90, at[1])
    moved = opened.clip("virtual")
    assert moved != before
    assert opened.clip("real") != before
    place = float(divider.get_attribute("aria-valuenow") or "")
    frame = opened.tab.locator(".frame").bounding_box()
    assert frame is not None
    assert place == pytest.approx(100 * (at[0] - 40 - frame["x"]) / frame["width"], abs=1)


def test_a_press_on_the_pictures_brings_the_nearest_divider(opened: Opened) -> None:
    frame = opened.tab.locator(".frame")
    box = frame.bounding_box()
    assert box is not None
    frame.click(position={"x": box["width"] * 0.1, "y": 30})
    first, second = (one.get_attribute("aria-valuenow") for one in frame.get_by_role("slider").all())
    assert first == "10"
    assert second != "10"


def test_a_divider_moves_with_the_keys_and_takes_the_other_along(opened: Opened) -> None:
    first, second = opened.tab.locator(".frame").get_by_role("slider").all()
    before, case = opened.clip("le"), opened.shown
    start = int(first.get_attribute("aria-valuenow") or "")
    first.press("ArrowRight")
    assert first.get_attribute("aria-valuenow") == str(start + 2)
    assert opened.clip("le") != before
    first.press("End")
    assert [one.get_attribute("aria-valuenow") for one in (first, second)] == ["100", "100"]
    second.press("Home")
    assert [one.get_attribute("aria-valuenow") for one in (first, second)] == ["0", "0"]
    assert second.get_attribute("aria-valuetext") == "0 % from the left"
    assert opened.shown == case


def test_filters_make_the_list_shorter_and_can_be_cleared(opened: Opened, tmp_path: Path) -> None:
    opened.facet("view").select_option(label="MLO")
    assert len(opened.names) == 4
    assert all("MLO" in name for name in opened.names)
    opened.facet("lesion").select_option(label="with")
    assert len(opened.names) == 2
    assert opened.shown in opened.names
    opened.part("search").fill("nobody")
    assert opened.part("none").is_visible()
    assert not opened.part("case").is_visible()
    opened.tab.screenshot(path=tmp_path / "none.png")
    opened.part("clear").click()
    assert len(opened.names) == 8
    assert opened.part("case").is_visible()


def test_the_list_is_in_the_order_of_the_chosen_figure(opened: Opened) -> None:
    def figures() -> list[float]:
        return [float(text) for text in opened.part("list").locator("td:last-child").all_text_contents()]

    assert figures() == sorted(figures())
    opened.part("reverse").click()
    assert figures() == sorted(figures(), reverse=True)
    opened.part("order").select_option("")
    opened.part("reverse").click()
    assert opened.names == sorted(opened.names)


def test_cases_without_the_figure_come_last(opened: Opened) -> None:
    opened.part("order").select_option("lesion_mae")
    texts = opened.part("list").locator("td:last-child").all_text_contents()
    assert texts[4:] == ["\N{EN DASH}"] * 4
    opened.part("reverse").click()
    assert opened.part("list").locator("td:last-child").all_text_contents()[4:] == texts[4:]


def test_previous_and_next_work_with_buttons_and_arrow_keys(opened: Opened) -> None:
    names = opened.names
    assert opened.part("previous").is_disabled()
    opened.part("next").click()
    assert opened.shown == names[1]
    opened.part("next").press("ArrowRight")
    assert opened.shown == names[2]
    opened.part("previous").click()
    assert opened.shown == names[1]
    opened.part("list").locator("button").nth(5).click()
    assert opened.shown == names[5]
    opened.tab.keyboard.press("ArrowDown")
    assert opened.shown == names[6]
    assert opened.tab.evaluate("document.activeElement.textContent") == names[6]
    assert opened.part("list").locator("[aria-current=true]").count() == 1


def test_another_arm_brings_its_picture_and_its_figures(opened: Opened) -> None:
    before = opened.pixels("virtual"), opened.part("list").locator("td:last-child").all_text_contents()
    opened.part("arm").select_option("seg100")
    opened.tab.wait_for_timeout(200)
    assert opened.tab.locator("[data-layer=virtual] figcaption").text_content() == "virtual, seg100"
    assert opened.part("heads").locator(".chosen").text_content() == "seg100"
    after = opened.pixels("virtual"), opened.part("list").locator("td:last-child").all_text_contents()
    assert after[1] != before[1]


def test_the_heat_map_shows_where_the_virtual_des_is_brighter_and_darker(opened: Opened, tmp_path: Path) -> None:
    heat, legend = opened.part("heat"), opened.part("legend")
    assert not legend.is_visible()
    heat.click()
    assert heat.get_attribute("aria-pressed") == "true"
    assert legend.is_visible()
    assert opened.tab.locator("[data-layer=error] canvas").is_visible()
    assert "virtual brighter" in (legend.text_content() or "")
    colours = opened.tab.evaluate(
        """() => {
          const data = JSON.parse(document.querySelector(".cases-data").textContent);
          const table = heatTable(data);
          return [255 - 80, 255, 255 + 80].map((i) => [table[i] & 255, (table[i] >> 8) & 255, (table[i] >> 16) & 255]);
        }"""
    )
    darker, same, brighter = colours
    assert same == [0, 0, 0]
    assert darker[2] > darker[0]
    assert brighter[0] > brighter[2]
    opened.tab.screenshot(path=tmp_path / "heat.png")
    heat.click()
    assert not opened.tab.locator("[data-layer=error] canvas").is_visible()


def test_the_lesion_outline_can_be_hidden(opened: Opened) -> None:
    opened.facet("lesion").select_option(label="with")
    assert opened.shown
    svg = opened.tab.locator("[data-layer=real] svg")
    assert svg.is_visible()
    assert (svg.locator("path").first.get_attribute("d") or "").startswith("M")
    opened.part("outline").click()
    assert not svg.is_visible()


def test_the_window_changes_both_des_and_returns_to_that_of_the_real_one(opened: Opened) -> None:
    automatic = [opened.pixels(layer) for layer in ("le", "real", "virtual")]
    opened.part("high").fill("20")
    assert [opened.pixels(layer) for layer in ("real", "virtual")] == [[255] * 3] * 2
    assert opened.pixels("le") == automatic[0]
    opened.part("auto").click()
    assert [opened.pixels(layer) for layer in ("le", "real", "virtual")] == automatic


def test_pictures_can_stand_side_by_side(opened: Opened, tmp_path: Path) -> None:
    opened.part("side").click()
    boxes = [opened.tab.locator(f"[data-layer={name}]").bounding_box() for name in ("le", "real", "virtual")]
    edges = [box["x"] for box in boxes if box is not None]
    assert edges == sorted(set(edges))
    assert opened.clip("virtual") == "none"
    assert not opened.tab.get_by_role("slider", name="Divider").first.is_visible()
    opened.tab.screenshot(path=tmp_path / "side.png")


def test_the_whole_browser_is_within_reach_of_the_tab_key(opened: Opened) -> None:
    opened.tab.keyboard.press("Tab")
    assert opened.tab.evaluate("document.activeElement.className") == "skip"
    opened.part("search").focus()
    seen = []
    for _ in range(40):
        opened.tab.keyboard.press("Tab")
        seen.append(opened.tab.evaluate("document.activeElement.dataset.part || document.activeElement.role || ''"))
    for part in ("arm", "order", "reverse", "next", "side", "heat", "low", "high", "auto"):
        assert part in seen
    assert seen.count("slider") == 2


def test_in_print_tables_are_whole_and_pictures_stand_side_by_side(opened: Opened, tmp_path: Path) -> None:
    opened.tab.emulate_media(media="print")
    for text in ("Paired comparisons", "Test cases", "Figures of this case"):
        assert (
            opened.tab.locator("table", has_text=text).or_(opened.tab.locator("h3", has_text=text)).first.is_visible()
        )
    assert opened.tab.locator("dd", has_text="torch 2.13.0").first.is_visible()
    assert opened.clip("virtual") == "none"
    for hidden in (".filters", ".scroll-list", "nav", ".divider.first"):
        assert not opened.tab.locator(hidden).first.is_visible()
    opened.tab.screenshot(path=tmp_path / "print.png", full_page=True)
    opened.tab.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").stat().st_size > 10_000


def test_on_a_phone_nothing_is_wider_than_the_screen(opened: Opened, tmp_path: Path) -> None:
    opened.tab.set_viewport_size(PHONE)  # type: ignore[arg-type]
    opened.tab.screenshot(path=tmp_path / "phone.png", full_page=True)
    assert opened.tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_without_scripts_the_page_says_so_and_shows_tables_and_examples(chromium: Browser, written: Path) -> None:
    with chromium.new_context(java_script_enabled=False) as context:
        tab = context.new_page()
        tab.goto(written.as_uri())
        assert tab.get_by_text("The case browser needs JavaScript").is_visible()
        assert tab.locator(".example img").first.is_visible()
        assert not tab.locator(".browser").is_visible()
