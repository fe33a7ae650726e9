"""Tables and pictures of the methods, from their measured numbers."""

import statistics

from benchmarks.shared import environment, markdown, plots, timing


def condition_table(records):
    names = list(dict.fromkeys(record["kernel"] for record in records))
    found = {(r["kernel"], r["method"]): r["condition_number"] for r in records}
    rows = [
        [method, *(number(found[name, method]) for name in names)] for method in methods_of(records)
    ]
    return ["method", *names], rows


def methods_of(records):
    """The methods in the order in which they were measured, after the raw kernel."""
    return list(dict.fromkeys(record["method"] for record in records))


def number(value):
    return f"{value:,.0f}" if value >= 100.0 else f"{value:.3g}"


def cost_table(records):
    rows = []
    for method in records[0]["seconds"]:
        if method == "product":
            continue
        row = [method]
        for record in records:
            product = statistics.median(record["seconds"]["product"])
            own = record["seconds"][method]
            quartiles = timing.quartiles(own)
            row.append(
                f"{statistics.median(own) / product:.2f} "
                f"({quartiles[0] / product:.2f}–{quartiles[2] / product:.2f})"
            )
        rows.append(row)
    return ["method", *(record["case"] for record in records)], rows


def gain_table(gains):
    return list(gains), [[f"{gain:.3f}" for gain in gains.values()]]


# Color, width and style of each method's line. Lines that lie on one another differ in width.
LOOKS = {
    "raw": (plots.BLACK, 6.0, "-"),
    "row_equilibration": (plots.BLUE, 4.0, "-"),
    "column_equilibration": (plots.SKY, 2.5, "-"),
    "ruiz_equilibration": (plots.PURPLE, 1.5, "-"),
    "weight_standardization": (plots.PURPLE, 1.5, ":"),
    "newton_step": (plots.GRAY, 2.5, "-"),
    "polynomial_preconditioner": (plots.ORANGE, 1.5, "-"),
    "polar_express": (plots.ORANGE, 1.5, "--"),
    "newton_orthogonalization": (plots.VERMILION, 1.5, "-"),
    "Newton, 20 iterations": (plots.VERMILION, 1.5, "--"),
}


def draw_spectra(records, path):
    """A panel per kernel, a line per method."""
    plt = plots.pyplot()
    names = list(dict.fromkeys(record["kernel"] for record in records))
    # The other two are the kernel itself, but for its scale.
    left_out = ("frobenius_normalization", "spectral_normalization")
    shown = [method for method in methods_of(records) if method not in left_out]
    figure, panels = plt.subplots(2, 3, figsize=(13, 7.5), layout="constrained", sharey=True)
    panels = panels.flatten()
    for panel, name in zip(panels, names, strict=False):
        for method in shown:
            color, width, style = LOOKS[method]
            (record,) = [r for r in records if (r["kernel"], r["method"]) == (name, method)]
            values = [
                max(v / record["singular_values"][0], 1e-8) for v in record["singular_values"]
            ]
            panel.plot(
                range(1, len(values) + 1),
                values,
                color=color,
                linewidth=width,
                linestyle=style,
                label=method,
            )
        panel.set(yscale="log", ylim=(1e-7, 2.0))
        panel.set_title(name, fontsize=11)
        plots.tidy(panel)
    for panel in panels[2:5]:
        panel.set_xlabel("index, largest first")
    for panel in panels[::3]:
        panel.set_ylabel("σ / σ_max")
    panels[5].axis("off")
    panels[5].legend(*panels[0].get_legend_handles_labels(), loc="center", fontsize=10)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_row_norms(records, path):
    """Raw norms, the rate that follows from them, and the loss."""
    plt = plots.pyplot()
    figure, panels = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    looks = ((plots.BLACK, "-"), (plots.BLUE, "--"), (plots.VERMILION, ":"))
    for record, (color, style) in zip(records, looks, strict=True):
        norms, look = record["norms"], {"color": color, "linestyle": style}
        panels[0].plot(norms, label=f"weight decay {record['decay']:g}", **look)
        panels[1].plot([0.1 / norm**2 for norm in norms], **look)
        panels[2].plot(range(1, len(norms)), record["losses"], **look)
    panels[0].set_title("Mean norm of the raw rows", fontsize=11)
    panels[1].set_title("Learning rate / squared norm", fontsize=11)
    panels[2].set_title("Training loss", fontsize=11)
    panels[1].set_yscale("log")
    panels[2].set_yscale("log")
    panels[0].legend(fontsize=9)
    for panel in panels:
        panel.set_xlabel("epoch")
        plots.tidy(panel)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def write(result, documents, folder):
    """Prints the tables, puts them into the documents, and draws the pictures into a folder."""
    tables = {
        "condition numbers": condition_table(result["spectra"]),
        "costs": cost_table(result["costs"]),
        "gains": gain_table(result["gains"]),
    }
    for headers, rows in tables.values():
        markdown.print_table(rows, headers)
    rounds = len(result["costs"][0]["seconds"]["product"])
    command = (
        f"`KERAS_BACKEND={result['backend']} python -m benchmarks.pages.methods --rounds {rounds} "
        f"--epochs {len(result['row_norms'][0]['losses'])}`"
    )
    blocks = {name: markdown.table(rows, headers) for name, (headers, rows) in tables.items()}
    blocks["conditions"] = f"{command}\n\n{environment.conditions([result])}"
    markdown.replace_blocks(documents, blocks)
    folder.mkdir(exist_ok=True)
    draw_spectra(result["spectra"], folder / "spectra.png")
    draw_row_norms(result["row_norms"], folder / "row-norms.png")
    print(f"Wrote the tables, and spectra.png and row-norms.png to {folder}")
