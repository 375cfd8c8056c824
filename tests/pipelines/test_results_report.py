"""The report and its figures: one page, no network access, no scripts needed, nothing of a record trusted."""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from ruamel.yaml import YAML

from pipelines.collect import collect
from pipelines.report import telling
from pipelines.results.columns import TABLES
from pipelines.results.curves import KINDS, curves, table_columns
from pipelines.results.overview import largest_first
from pipelines.results.pictures import Picture, series
from pipelines.results.plotting import inline
from pipelines.results.records import Library, read_records
from pipelines.results.rows import table_rows
from pipelines.results.search_figures import survivor_shares
from pipelines.results.views import views
from pipelines.tables import build
from search.files import read_csv, read_json, write_json, write_text
from tests.pipelines.results_records import (
    genotype,
    in_memory,
    write_campaign,
    write_run,
    write_search,
    write_transfer,
    write_variant,
)

ROOT = Path(__file__).parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
HOSTILE = '"><svg/onload=alert(1)> $x$ & more'
"""A setting of a variant: tables and figures name the variant by it."""
VOID = {"meta", "img", "br", "hr", "input", "link"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """results/ of a synthetic campaign with a hostile note in one record."""
    top = tmp_path_factory.mktemp("suite")
    runs = write_campaign(top / "runs")
    path = runs / "reid/cp_nas-s0-1bit-s0/provenance.json"
    write_json(path, {**read_json(path), "cpu": "<script>document.title='x'</script>"})
    params = {"space": {"cells": 5}, "method": {"cp_nas": {"rounds": HOSTILE}}}
    write_variant(runs, "cp_nas_hostile", "cp_nas", 0, params, 0.5)
    collect(runs, top / "results/records", "quick")
    build(top / "results")
    return top / "results"


class _Page(HTMLParser):
    """Collects identifiers, links and what is open, and complains about a wrong end tag."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.open: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the element."""
        found = dict(attrs)
        self.attributes |= set(found)
        self.ids += [found["id"]] if found.get("id") else []
        self.links += [value for key in ("href", "src", "xlink:href") if (value := found.get(key))]
        self.scripts += tag == "script"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element of an SVG that closes itself."""
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        """Ends must match."""
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"


@pytest.fixture(scope="module")
def page(results: Path) -> _Page:
    """The parsed report."""
    parsed = _Page()
    parsed.feed((results / "report.html").read_text())
    assert parsed.open == []
    return parsed


def test_nothing_is_fetched(page: _Page, results: Path) -> None:
    """Every link is to a place in the page, a data URI or a file beside it; no address, no import."""
    for link in page.links:
        assert re.match(r"#|data:image/(png|jpeg|svg\+xml);base64,|(curves/)?[\w.-]+\.(csv|md|tex)$", link), (
            link
        )
    text = (results / "report.html").read_text()
    assert "@import" not in text and not re.search(r"url\((?!#)", text)


def test_identifiers_are_unique_and_links_arrive(page: _Page) -> None:
    """Figures from one drawing library repeat their identifiers unless told apart."""
    targets = [link[1:] for link in page.links if link.startswith("#")]
    assert set(targets) <= set(page.ids)
    repeated = {name for name in page.ids if page.ids.count(name) > 1}
    assert not repeated & set(targets)


def test_records_cannot_put_code_into_the_page(page: _Page, results: Path) -> None:
    """One script, ours; a record's text is text: in the page, its figures and the Markdown, in variants' names too."""
    text = (results / "report.html").read_text()
    assert page.scripts == 1
    assert (
        "<svg/onload" not in text
        and "&lt;svg/onload=alert(1)&gt;" in text
        and "onload" not in page.attributes
    )
    assert "<svg/onload" not in "".join(path.read_text() for path in results.glob("*.md"))
    for path in (results / "figures").glob("*.svg"):
        ElementTree.fromstring(path.read_text())
        assert "<svg/onload" not in path.read_text()
    assert "<script>document.title" not in text and "&lt;script&gt;document.title" in text


def test_page_has_every_part(results: Path) -> None:
    """Figures inline, cells, pictures, claims, provenance of every run, checklists."""
    text = (results / "report.html").read_text()
    for anchor in (
        "glance",
        "claims",
        "search",
        "classification",
        "detection",
        "reid",
        "cost",
        "provenance",
        "checklist",
    ):
        assert f'<section id="{anchor}">' in text
    assert text.count("<svg") == len(list((results / "figures").glob("*.svg")))
    assert text.count('<details class="run">') == len(list((results / "records").rglob("run.json")))
    assert text.count("data:image/png;base64,") == 2 and text.count("data:image/svg+xml;base64,") == 2
    assert 'name="viewport"' in text and "prefers-color-scheme:dark" in text
    assert "not comparable with any paper" in text


def test_a_claim_stands_once_with_all_its_cases(results: Path) -> None:
    """A claim that was run is one entry with a verdict for each case, or their number; the others are one block."""
    text = unescape((results / "report.html").read_text())
    rows = read_csv(results / "claims.csv")
    run = {row["text"] for row in rows if row["verdict"] != "not run"}
    others = list(dict.fromkeys(row["text"] for row in rows if row["text"] not in run))
    entries = re.findall(r'<p class="claim">(.*?)</p>(.*?)</details>', text, flags=re.DOTALL)
    assert {claim for claim, _ in entries} == run and len(entries) == len(run)
    for claim, rest in entries:
        cases = {(row["claim"], row["case"]) for row in rows if row["text"] == claim}
        several = re.findall(r'<span class="chip [^"]*">(\d+) ', rest)
        assert (sum(map(int, several)) or rest.count('<span class="chip ')) == len(cases)
    block = text[text.index('<div class="block not-run">') :].partition("</div>")[0]
    assert re.findall(r"<summary>(.*?)</summary>", block) == others and len(others) > 5
    assert text.index('<div class="block not-run">') > text.rindex('<p class="claim">')


def test_counts_are_shown_where_they_say_something(results: Path) -> None:
    """Generous operations equal to the strict ones in every row, and what no row has, are left out of the page."""
    text = (results / "report.html").read_text()
    section = text[text.index('<section id="classification">') :]
    first = section[section.index("<thead>") : section.index("</thead>")]
    assert "OPs strict M" in first and "OPs generous M" not in first
    spec = next(spec for spec in TABLES if spec.name == "classification")
    rows = table_rows(spec, Library(tuple(read_records(results / "records"))))
    heads = [column.head for column in telling(views(spec, rows)[0])]
    rows[0]["ops_generous_M"] = rows[0]["ops_strict_M"] / 2
    more = [column.head for column in telling(views(spec, rows)[0])]
    assert set(more) - set(heads) == {"OPs generous M"}
    for row in rows:
        row["mbit"] = None
    assert set(more) - {column.head for column in telling(views(spec, rows)[0])} == {"Mbit"}


def test_figures_are_whole_svg_with_dark_colours(results: Path) -> None:
    """Well-formed, transparent, text as text, with rules for dark pages, no date and no raster inside."""
    files = sorted((results / "figures").glob("*.svg"))
    assert {
        "accuracy-quick",
        "accuracy-ops-quick",
        "cited-ops",
        "search-quick-cp_nas",
        "search-quick-random",
        "survivors-quick-cp_nas",
        "cell-quick-cp_nas-s0",
        "training-classification-quick-cifar10-cifar10",
        "training-detection-quick-detection-cifar10-scenes",
        "training-reid-quick-reid-orl-faces",
    } <= {path.stem for path in files}
    for path in files:
        text = path.read_text()
        root = ElementTree.fromstring(text)
        assert root.tag.endswith("svg") and root.get("viewBox")
        assert "prefers-color-scheme" in text and "<image" not in text and "dc:date" not in text
        assert root.find(".//{http://www.w3.org/2000/svg}text") is not None


def test_survivor_shares() -> None:
    """Half of the edges keep operation 0, all keep 3, none keeps 7."""
    rows = [{"surviving_normal": "|".join(["03"] * 7 + ["3"] * 7)}]
    assert survivor_shares(rows, "surviving_normal") == [[0.5, 0, 0, 1.0, 0, 0, 0, 0]]


def test_series_skips_empty_cells() -> None:
    """A search without a Parent has an empty column."""
    rows = [
        {"step": "0", "accuracy_parent": "", "accuracy_child": "0.5"},
        {"step": "1", "accuracy_child": "0.6"},
    ]
    assert series(rows, "step", "accuracy_parent") == ([], [])
    assert series(rows, "step", "accuracy_child") == ([0.0, 1.0], [0.5, 0.6])


def test_inline_keeps_figures_apart() -> None:
    """Identifiers, references and style rules of one figure do not reach into another."""
    svg = (
        '<?xml version="1.0"?><svg xmlns="x" role="img"><style>'
        ".a,text{fill:red}@media (m){.a{fill:blue}}</style>"
        '<g id="g1"/><use xlink:href="#g1" clip-path="url(#g1)"/></svg>'
    )
    found = inline(svg, "one", 'a "label"')
    assert found.startswith('<svg xmlns="x" role="img" id="one" aria-label="a &quot;label&quot;">')
    assert "#one .a,#one text{fill:red}@media (m){#one .a{fill:blue}}" in found
    assert 'id="one-g1"' in found and '"#one-g1"' in found and "url(#one-g1)" in found


def test_several_seeds_are_one_curve(results: Path) -> None:
    """Three searches of a method, retrained once each: one line, its mean and its deviation, in percent."""
    library = Library(tuple(read_records(results / "records")))
    kind = next(kind for kind in KINDS if kind.name == "classification")
    found = {curve.network: curve for curve in curves(kind, library) if curve.place[1] == "cifar10"}
    assert set(found) == {"CP-NAS", "CP-NAS (real-valued)", "Random search", "Random search (real-valued)"}
    curve = found["CP-NAS"]
    records = [r for r in library.of("retrain") if r.task == "cifar10" and r.family == "cp_nas"]
    last = [100 * float(r.history[-1]["accuracy"]) for r in records if r.precision == "1bit"]
    assert curve.n == len(last) == 3
    time, mean, std = curve.line("accuracy")
    assert time == [2, 3, 4]  # the synthetic histories count from 1
    assert mean[-1] == pytest.approx(statistics.fmean(last))
    assert std[-1] == pytest.approx(statistics.stdev(last))


def test_curves_are_files_for_dvc(results: Path) -> None:
    """One file a table with the columns that README.md explains; dvc.yaml plots columns of these files."""
    plots = YAML(typ="safe").load(ROOT / "dvc.yaml")["plots"]
    drawn = {file: column for entry in plots for plot in entry.values() for file, column in plot["y"].items()}
    assert set(drawn) == {f"results/curves/{kind.name}.csv" for kind in KINDS}
    for kind in KINDS:
        rows = read_csv(results / "curves" / f"{kind.name}.csv")
        assert list(rows[0]) == list(table_columns(kind))
        assert all(float(row[drawn[f"results/curves/{kind.name}.csv"]]) for row in rows)
    assert read_json(ROOT / ".dvc/plots/curves.json")["data"] == {"values": "<DVC_METRIC_DATA>"}


def test_curves_with_the_same_name_are_told_apart(tmp_path: Path) -> None:
    """Two runs of one network with different settings are two curves."""
    write_search(tmp_path / "runs", "cp_nas", 0)
    write_search(tmp_path / "runs", "cp_nas", 1, beta_p=2.0)
    collect(tmp_path / "runs", tmp_path / "records", "quick")
    found = curves(KINDS[0], Library(tuple(read_records(tmp_path / "records"))))
    assert len({curve.network for curve in found}) == len({curve.key for curve in found}) == len(found) == 2


def test_pictures_are_few(tmp_path: Path) -> None:
    """Of five seeds with five pictures each, the report shows the first four pictures of the first seed."""
    for seed in range(5):
        write_transfer(tmp_path / "runs", "cp_nas", seed)
        folder = tmp_path / f"runs/reid/cp_nas-s{seed}-1bit-s0/pictures"
        for number in range(2, 6):
            shutil.copyfile(folder / "query_1.svg", folder / f"query_{number}.svg")
    collect(tmp_path / "runs", tmp_path / "results/records", "quick")
    build(tmp_path / "results")
    text = (tmp_path / "results/report.html").read_text()
    shown = re.findall(r'alt="([^"]*): query (\d)"', text)
    assert shown == [("CP-NAS, cp_nas-s0, seed 0", str(number)) for number in (1, 2, 3, 4)]


def test_readme_explains_every_file_and_column(results: Path) -> None:
    """Of results/, and of the CSV files of the records, both the synthetic and the committed ones."""
    named = set(re.findall(r"`([^`]+)`", (results / "README.md").read_text()))
    for path in results.iterdir():
        assert {path.name, f"{path.name}/", path.suffix, f"{path.name}/<profile>/"} & named, path.name
    for path in [*results.glob("records/**/*.csv"), *ROOT.glob("results/records/**/*.csv")]:
        assert path.name in named
        missing = set(path.read_text().partition("\n")[0].split(",")) - named
        assert path.name == "alphas.csv" or not missing, f"{path}: {missing}"


def test_a_search_alone_gives_a_report(tmp_path: Path) -> None:
    """With one search and nothing else recorded, the page says what is missing and draws what is there."""
    write_search(tmp_path / "runs", "cp_nas", 0)
    collect(tmp_path / "runs", tmp_path / "results/records", "quick")
    build(tmp_path / "results")
    text = (tmp_path / "results/report.html").read_text()
    assert text.count("No runs are recorded for this table.") == 5 and "No retraining is recorded." in text


def test_figures_with_most_retrained_networks_come_first() -> None:
    """Whatever order they were drawn in; equal ones stay in it."""
    runs = [
        in_memory(name, {"stage": "retrain", "network": f"n{number}", "task": "cifar10"}, {}, {})
        for name, count in (("few", 1), ("many", 3), ("some", 2))
        for number in range(count)
    ]
    pictures = [Picture(name, "accuracy", "", "", name) for name in ("none", "few", "many", "some")]
    found = largest_first(pictures, Library(tuple(runs)))
    assert [picture.campaign for picture in found] == ["many", "some", "few", "none"]


def test_a_campaign_without_found_networks(tmp_path: Path) -> None:
    """Hand-made networks alone, retrained and on detection: every table and figure, claims undecided or not run."""
    for place in range(3):
        name = f"net-{place}"
        metrics = {"accuracy": 0.4 + 0.1 * place, "top5": 0.9}
        write_run(
            tmp_path / "runs",
            f"retrain/imagenet/{name}-1bit-s0",
            network=name,
            method=None,
            task="imagenet",
            form=None,
            metrics=metrics,
        )
        write_run(
            tmp_path / "runs",
            f"detect/{name}-1bit-s0",
            network=name,
            method=None,
            task="detection",
            form=None,
            metrics={"voc_map50": 0.2 + 0.1 * place},
        )
    collect(tmp_path / "runs", tmp_path / "results/records", "photos")
    build(tmp_path / "results")
    rows = read_csv(tmp_path / "results/claims.csv")
    assert {row["verdict"] for row in rows} == {"undecided", "not run"}
    assert [row["n"] for row in rows if row["verdict"] == "undecided"] == ["3"]
    text = (tmp_path / "results/report.html").read_text()
    assert text.count("No runs are recorded for this table.") == 5 and "photos, 6 runs" in text
    ours = [row for row in read_csv(tmp_path / "results/classification.csv") if row["n"]]
    assert [(row["variant"], row["searches"], row["form"]) for row in ours] == [("", "", "")] * 3


def test_a_search_says_whether_it_is_noise(tmp_path: Path) -> None:
    """Each diagnosis with its level, in words; nothing where none was recorded."""
    for method, metrics in (
        ("cp_nas", {"signal_share": -0.2, "tie_share": 0.5}),
        ("random", {"tie_share": 0.0}),
        ("darts", {}),
    ):
        write_run(
            tmp_path / "x",
            f"search/{method}-s0",
            network=f"{method}-s0",
            method=method,
            task="cifar10",
            found=genotype(method, 0),
            metrics=metrics,
            counted=False,
        )
    spec = next(spec for spec in TABLES if spec.name == "signal")
    rows = table_rows(spec, Library(tuple(read_records(tmp_path))))
    found = {row["variant"]: spec.rendered([row])[0]["noise"] for row in rows}
    assert found == {"cp_nas": "signal, ties", "random": "nothing", "darts": None}
    assert "signal at or below 0;" in spec.about and "ties at or above 0.05" in spec.about
    (view,) = views(spec, rows)
    assert [column.head for column in view.columns][3:] == ["signal", "ties", "this run is noise by", "level"]


def _browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser found: {', '.join(BROWSERS)}")
    return found


PROBE = """
<script>
document.querySelectorAll("details").forEach((e) => { e.open = true; });
const wide = [...document.querySelectorAll("main *")].filter((e) => {
  if (e.closest(".scroll") || e.closest("pre")) return false;
  return e.getBoundingClientRect().right > document.documentElement.clientWidth + 1;
});
const table = document.querySelector("#classification table");
const first = () => table.tBodies[0].rows[0].cells[2].textContent;
table.tBodies[0].rows[1].cells[2].textContent = "–";
const last = () => [...table.tBodies[0].rows].at(-1).cells[2].textContent;
const head = table.tHead.rows[0].cells[2];
head.querySelector("button").click();
const down = parseFloat(first());
const missing = [last()];
head.querySelector("button").click();
missing.push(last());
const stay = () => table.tBodies[0].rows[0].cells[0].getBoundingClientRect().left;
const box = table.closest(".scroll");
const left = stay();
box.scrollLeft = 60;
const moved = [box.scrollLeft, Math.abs(stay() - left)];
const out = document.createElement("p");
out.id = "probe";
out.textContent = JSON.stringify({wide: wide.length, scroll: document.documentElement.scrollWidth,
  client: document.documentElement.clientWidth, down, up: parseFloat(first()),
  sort: head.getAttribute("aria-sort"), missing, moved,
  broken: [...document.images].filter((i) => i.complete && i.naturalWidth === 0).length,
  ink: getComputedStyle(document.body).color,
  axis: getComputedStyle(document.querySelector("#accuracy-quick text")).fill});
document.body.append(out);
</script></body>"""


def _in_browser(browser: str, page: Path, profile: Path, *options: str) -> str:
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        f"--user-data-dir={profile}",
        *options,
        "--dump-dom",
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1280, False)])
def test_page_in_a_browser(results: Path, tmp_path: Path, width: int, dark: bool) -> None:
    """Nothing runs off the page with all of it open, tables sort both ways, dark mode reaches page and figures."""
    browser = _browser()
    frame = tmp_path / "page.html"
    write_text(frame, (results / "report.html").read_text().replace("</body>", PROBE))
    # A window is at least 500 wide without a screen, a frame is as narrow as a phone.
    outer = tmp_path / "frame.html"
    write_text(
        outer,
        f"""<iframe id="f" src="page.html" style="width:{width}px;height:900px;border:0"></iframe><script>
      document.getElementById("f").onload = (e) =>
        document.body.append(e.target.contentDocument.getElementById("probe"));
      </script>""",
    )
    options = ["--allow-file-access-from-files", "--window-size=1400,1000"]
    options += ["--blink-settings=preferredColorScheme=0"] if dark else []
    dom = _in_browser(browser, outer, tmp_path / "profile", *options)
    found = re.search(r'<p id="probe">(.*?)</p>', dom)
    assert found is not None, dom[-500:]
    probe = json.loads(unescape(found[1]))
    assert probe["wide"] == 0 and probe["scroll"] == probe["client"] == width
    assert probe["down"] > probe["up"] and probe["sort"] == "ascending"
    assert probe["missing"] == ["–", "–"]
    assert probe["moved"][1] < 1 and (probe["moved"][0] > 0 or width > 390)  # the first column stays in sight
    assert probe["broken"] == 0
    light = {"ink": "rgb(35, 39, 45)", "axis": "rgb(51, 56, 63)"}
    assert {key: probe[key] for key in light} == (
        {"ink": "rgb(227, 231, 236)", "axis": "rgb(227, 231, 236)"} if dark else light
    )
