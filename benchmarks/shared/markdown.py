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


def replace_blocks(documents, blocks):
    """Writes each block into the documents that have its marks, and leaves the rest as it is.

    Args:
        documents: List of paths.
        blocks: Dict from the name of each block to its text.
    """
    for path in map(pathlib.Path, documents):
        document = path.read_text(encoding="utf-8")
        marked = [name for name in blocks if f"<!-- {name} -->" in document]
        if not marked:
            raise ValueError(f"Expected a block of {list(blocks)} in {path}. Received: none.")
        for name in marked:
            document = _with_block(document, path, name, blocks[name])
        path.write_text(document, encoding="utf-8")


def _with_block(document, path, name, text):
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    if document.count(start) != 1 or document.count(end) != 1:
        raise ValueError(f"Expected one block {name!r} in {path}. Received: several, or no end.")
    before, rest = document.split(start)
    after = rest.split(end)[1]
    return f"{before}{start}{text.strip()}\n{end}{after}"
