"""The documentation runs, shows what it really gives, and its links lead somewhere."""

import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from markdown_it import MarkdownIt

from mlxray.points.vocabulary import POINTS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]

#: Info strings of code blocks. Blocks of the first row run; any other spelling would not.
LANGUAGES = {
    *("python", "text", "console"),
    *("sh", "toml", "json", "yaml"),
}


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """docs/build.py."""
    monkeypatch.syspath_prepend(str(DOCS))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    import build

    assert Path(build.__file__).parent == DOCS
    return build


@pytest.mark.filterwarnings("ignore:there is no display", "ignore:plugin 'misspelt'")
@pytest.mark.parametrize(
    "page",
    [
        # What it shows are sizes of rounding errors.
        pytest.param(page, id=name, marks=pytest.mark.floats if name == "docs/cli.md" else ())
        for page, name in zip(PAGES, NAMES, strict=True)
    ],
)
def test_page_runs_and_shows_what_it_gives(build: ModuleType, page: Path):
    text, new = build.build(page)
    stale = build.difference(page, text, new)
    assert not stale, f"run `python docs/build.py {page.relative_to(ROOT)}`:\n{stale}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_blocks_are_of_a_known_language(page: Path):
    found = {token.info for token in MarkdownIt().parse(page.read_text("utf-8")) if token.info}
    assert found <= LANGUAGES


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path):
    for link in links(page.read_text("utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} in {page.name}: there is no such file"
        assert target.is_relative_to(ROOT), f"{link} in {page.name} leaves the repository"
        if anchor:
            assert anchor in anchors(target.read_text("utf-8")), f"{link} in {page.name}"


def test_every_page_can_be_reached_from_the_index():
    reached: set[Path] = set()
    ahead = [DOCS / "index.md"]
    while ahead:
        page = ahead.pop()
        reached.add(page)
        for link in links(page.read_text("utf-8")):
            target = (page.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target in PAGES and target not in reached:
                ahead.append(target)
    assert set(PAGES) - reached - {ROOT / "README.md"} == set()


def links(text: str) -> Iterator[str]:
    """Targets of the links and pictures of a Markdown text."""
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        for child in token.children or []:
            target = child.attrs.get("href") or child.attrs.get("src")
            if target:
                yield str(target)


def anchors(text: str) -> set[str]:
    """Anchors that GitHub and MkDocs make of a text's headings."""
    tokens = MarkdownIt().parse(text)
    headings = [b.content for a, b in itertools.pairwise(tokens) if a.tag[:1] == "h"]
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def test_table_of_hook_points_has_all_of_them():
    text = (DOCS / "hook-points.md").read_text("utf-8")
    for point in POINTS.values():
        assert f"| `{point.name}` | {point.axes} |" in text


def test_every_benchmark_is_listed():
    text = (DOCS / "benchmarks.md").read_text("utf-8")
    scripts = {file.name for file in (ROOT / "tests/benchmarks").glob("*.py")}
    assert scripts == set(re.findall(r"^\| `(\w+\.py)` \|", text, flags=re.MULTILINE))


def write(folder: Path, text: str) -> Path:
    page = folder / "page.md"
    page.write_text(text, encoding="utf-8")
    return page


def test_stale_output_is_found_and_mended(build: ModuleType, tmp_path: Path):
    page = write(tmp_path, "```python\nprint('new', 1.0)\n```\n\n```text\nold\n```\n")
    text, new = build.build(page)
    assert text != new
    assert new.endswith("```text\nnew 1.0\n```\n")
    write(tmp_path, new)
    assert build.build(page) == (new, new)


def test_output_whose_lines_all_begin_with_spaces_is_replaced_whole(
    build: ModuleType, tmp_path: Path
):
    page = write(tmp_path, "```python\nprint('  a\\n  b')\n```\n\n```text\n  c\n  d\n```\n")
    assert build.build(page)[1].endswith("```text\n  a\n  b\n```\n")


def test_stale_table_is_found(build: ModuleType, tmp_path: Path):
    page = write(tmp_path, "<!-- table: points -->\nold\n<!-- end -->\n")
    assert "| `resid_mid` |" in build.build(page)[1]


def test_page_that_does_not_raise_as_it_says_fails(build: ModuleType, tmp_path: Path):
    page = write(tmp_path, "<!-- raises -->\n```python\n1 + 1\n```\n")
    with pytest.raises(AssertionError, match="nothing was raised"):
        build.build(page)


def test_failing_assertion_names_page_and_line(build: ModuleType, tmp_path: Path):
    page = write(tmp_path, "# Title\n\n```python\nx = 1\nassert x == 2\n```\n")
    with pytest.raises(AssertionError) as caught:
        build.build(page)
    last = caught.traceback[-1]
    assert (last.path, last.lineno + 1) == (page, 5)


@pytest.mark.parametrize(
    ("now", "made", "agree"),
    [
        ("layer 3: 0.512", "layer 3: 0.513", True),
        ("layer 3: 0.512", "layer 3: 0.612", False),
        ("layer 3", "layer 4", False),
        ("97%", "98%", True),
        ("97%", "93%", False),
        ("error 1e-07", "error 3e-07", True),
        ("error 1e-07", "error 1e-04", False),
        ("head_share exact", "head_share 3e-07", True),
        ("head_share 3e-07", "head_share exact", True),
        ("head_share exact", "head_share 3e-03", False),
        ("head_share exact", "head_share 3", False),
        ("a 1.5", "b 1.5", False),
        ("1.5", "1.5 2.5", False),
        ("-0.50", "0.50", False),
        ("a\n…\nd\n", "a\nb\nc\nd\n", True),
        ("a\n…\nd\n", "a\nb\nc\n", False),
        ("a\n…\nc 1.50\n…\n", "a\nb\nc 1.51\nd\n", True),
        ("…\nb\n", "a\nb\n", True),
        ("…\nb\n", "b\na\n", False),
    ],
)
def test_numbers_may_differ_in_their_last_digits_and_lines_be_left_out(
    build: ModuleType, now: str, made: str, agree: bool
):
    assert build.same(now, made) is agree


def test_modules_beside_the_pages_shadow_nothing():
    """docs/ is on the path while pages are built."""
    for file in DOCS.glob("*.py"):
        assert file.stem not in sys.stdlib_module_names
