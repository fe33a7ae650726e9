"""The pages of the documentation and the first page."""

import pathlib
import re

import keras_wcond
from keras_wcond import __main__, conditioners

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_reference_has_every_public_name_once():
    text = "".join(path.read_text(encoding="utf-8") for path in (DOCS / "reference").glob("*.md"))
    documented = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    public = {f"keras_wcond.{name}" for name in keras_wcond.__all__} - {"keras_wcond.conditioners"}
    public |= {f"keras_wcond.conditioners.{name}" for name in conditioners.__all__}
    assert sorted(documented) == sorted(public)


def test_reference_has_every_option_of_each_command():
    text = (DOCS / "reference" / "command-line.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE))
    (subparsers,) = (
        action for action in __main__._parser()._actions if isinstance(action.choices, dict)
    )
    options = {
        name: {word for action in parser._actions for word in action.option_strings}
        for name, parser in subparsers.choices.items()
    }
    found = {
        name: {*re.findall(r"^\| `(--[a-z-]+)", section, re.MULTILINE)}
        for name, section in sections.items()
    }
    assert found == {name: words - {"-h", "--help"} for name, words in options.items()}


def test_navigation_has_every_page():
    listed = re.findall(r"(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert sorted(listed) == sorted(pages)


def test_readme_has_at_most_800_words_beside_code_and_tables():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for line in text.splitlines() if not line.startswith(("|", "<!--", "!["))]
    assert len(re.sub(r"\]\([^)]*\)", "]", " ".join(lines)).split()) <= 800


def test_links_of_the_readme_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    local = [target for target in targets if not target.startswith("http")]
    assert local
    assert [target for target in local if not (ROOT / target).exists()] == []
