"""The pages' examples run, and their links lead somewhere."""

import re

import pytest

from tests.tools.readme_program import HEAD, README, ROOT, program_of

PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
PROGRAMS = {name: program for name, text in TEXTS.items() if (program := program_of(text)).strip()}


def without_code(text):
    """The page without its fenced blocks, indented blocks and code in a line: what is Markdown for a reader."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"^ {4}.*$|`[^`\n]*`", "", text, flags=re.MULTILINE)


def links_of(text):
    return re.findall(r"\]\(([^()\s]+)\)", without_code(text))


def anchors_of(text):
    """The anchors that GitHub gives to the headings."""
    without_blocks = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", without_blocks, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page, link):
    """Whether a link to this repository leads nowhere."""
    if link.startswith(("https://", "http://")):
        return False
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.is_relative_to(ROOT.resolve()) or not target.exists():
        return True
    return bool(anchor) and anchor not in anchors_of(target.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_examples_of_a_page_run_one_after_the_other(name, tmp_path, monkeypatch):
    for library in ("torch", "keras", "flax", "equinox"):  # which the extra `test` does not bring along
        if f"import {library}" in PROGRAMS[name]:
            pytest.importorskip(library, exc_type=ModuleNotFoundError)
    monkeypatch.chdir(tmp_path)  # where an example may write
    path = tmp_path / "example.py"  # a file, because a cached @njit function needs one
    path.write_text(PROGRAMS[name], encoding="utf-8")
    exec(compile(PROGRAMS[name], path, "exec"), {"__name__": "example", "__file__": str(path)})


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_to_this_repository_leads_somewhere(name):
    assert [link for link in links_of(TEXTS[name]) if broken(ROOT / name, link)] == []


def test_a_link_that_leads_nowhere_is_found():
    page = ROOT / "docs" / "README.md"
    links = links_of("[a](none.md) [b](../README.md#none) ![c](#none) [d](../../outside.md)")
    assert len(links) == 4
    assert all(broken(page, link) for link in links)
    assert not any(
        broken(page, link) for link in ("../README.md#limits", "../bnnumba/axes.py", "https://numba.pydata.org")
    )
    assert links_of("```\n[a](none.md)\n```\n    [b](none.md)\n`[c](none.md)`\n") == []


def test_every_page_can_be_found_from_the_index():
    index = ROOT / "docs" / "README.md"
    linked = {link.partition("#")[0] for link in links_of(index.read_text(encoding="utf-8"))}
    assert {page.name for page in PAGES if page.parent == index.parent} - {index.name} <= linked


def test_the_readme_is_short_and_has_three_examples():
    lines = TEXTS["README.md"].splitlines()
    assert len(lines) <= 200
    assert lines.count("```python") == 3


def test_a_program_keeps_the_lines_of_its_page():
    assert (
        program_of("# a\n```python\nb = 1\n```\n```\nc\n```\n```python\nd = b\n```\n")
        == "\n\nb = 1\n\n\n\n\n\nd = b\n\n"
    )
    assert program_of(TEXTS["README.md"]).startswith("\n")  # where HEAD goes
    assert "\n" not in HEAD
