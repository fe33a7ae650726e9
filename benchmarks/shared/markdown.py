"""Tables as GitHub's Markdown, and named blocks of documents that commands replace."""

import pathlib

# Generated pages and pictures.
PAGES = pathlib.Path(__file__).parents[2] / "docs" / "results"


def table(rows, headers):
    """A table whose cells are text."""
    return _tabulated(rows, headers, "github")


def print_table(rows, headers):
    """Prints the same for a terminal."""
    print(_tabulated(rows, headers, "rounded_outline"))


def _tabulated(rows, headers, form):
    import tabulate

    return tabulate.tabulate(rows, headers, tablefmt=form, disable_numparse=True)


def replace_block(path, name, text):
    """Puts text between the marks of a block in a document, and leaves the rest as it is."""
    path = pathlib.Path(path)
    document = path.read_text(encoding="utf-8")
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    if document.count(start) != 1 or document.count(end) != 1:
        raise ValueError(f"Expected one block {name!r} in {path}. Received: none, or several.")
    before, rest = document.split(start)
    after = rest.split(end)[1]
    path.write_text(f"{before}{start}{text.strip()}\n{end}{after}", encoding="utf-8")
