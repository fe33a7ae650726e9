"""Tables and pictures of a comparison, from its lines alone.

Writes docs/comparison.md with a table for each family and optimizer, a picture for each family,
and the summary in the README. Runs on whatever lines there are, and says what is missing.
"""

import argparse
import json
import os
import pathlib
import statistics

import environment
import evidence
import lines
import pictures
import settings
import tabulate
import tuning
import words

ROOT = pathlib.Path(__file__).parents[1]
TITLES = {
    "deep": "Deep plain networks: twenty tanh layers, Fashion-MNIST",
    "deep50": "Deeper still: fifty tanh layers, Fashion-MNIST",
    "badly_scaled": "Badly scaled: the twenty layers, with rows that differ in norm",
    "fine_tuned": "Fine-tuned: the twenty layers, trained on negatives before",
    "pruned": "Pruned: the twenty layers, trained before, nine tenths of their weights removed",
    "cnn": "CNN: a ResNet of eight layers, Fashion-MNIST",
    "vit": "ViT: three blocks, Fashion-MNIST",
    "nerf": "NeRF: the traced scene",
    "shape": "3D shape: the ball of a gyroid",
}


def read(folder):
    """The records of all families: {(family, optimizer): records}."""
    found = {}
    for name in settings.FAMILIES:
        for record in lines.read(folder / f"{name}.jsonl"):
            found.setdefault((name, record["optimizer"]), []).append(record)
    return found


def failed(summary):
    """How many seeds, and runs of the tuning, diverged, if any did."""
    parts = [f"{summary.failed} of {len(summary.scores)} seeds"] if summary.failed else []
    parts += [f"{summary.diverged} runs of tuning"] if summary.diverged else []
    return f" ({' and '.join(parts)} diverged)" if parts else ""


def against(comparison, form):
    """A difference with its p, bold where it is one at the level of 5 %."""
    if comparison is None:
        return ""
    _, unit, _ = form
    # Two digits of p are enough, and a p of 0 is none.
    p = "<0.001" if comparison.p < 0.001 else f"{comparison.p:.2g}"
    text = f"{unit * comparison.difference:+.2f} (p {p})"
    return f"**{text}**" if comparison.outcome != "tie" else text


def step_times(folder, name):
    """Seconds of a training step of a family, by normalization; empty where not measured."""
    path = folder / "step-times.json"
    if not path.exists():
        return {}
    seconds = json.loads(path.read_text(encoding="utf-8")).get(name, {}).get("seconds", {})
    return {each: statistics.median(own) for each, own in seconds.items()}


def cost(name, times):
    """The time of a step over the plain network's."""
    name = name.partition(",")[0]
    return f"{times[name] / times[settings.PLAIN]:.2f}×" if name in times else "-"


def time_to_level(family, summary, times):
    """Epochs until the plain network's last quality, and their time over its whole training."""
    if summary.epochs is None:
        return "-"
    text = f"{summary.epochs:.1f}"
    name = summary.normalization.partition(",")[0]
    if name in times:
        ratio = times[name] / times[settings.PLAIN]
        text += f" ({ratio * summary.epochs / family.options().epochs:.2f}×)"
    return text


def family_table(family, found, compared, times):
    """A row for each method: scores, what was chosen, and how it stands to rival and controls."""
    form = evidence.FORMS[family.test_score]
    rows = []
    for name, summary in found.items():
        point = summary.point
        chosen = f"{point['rate']:.2g}"
        if point["scale"] != 1.0 and not tuning.is_matched(name):
            chosen += f", {point['scale']:.2g}"
        if point["mode"] and not tuning.is_matched(name):
            chosen += f", {point['mode']}"
        rows.append(
            [
                f"`{name}`",
                chosen + (" (edge)" if summary.at_edge else ""),
                words.with_interval(summary.scores, form) + failed(summary),
                words.with_interval(summary.default, form),
                *(against(compared.get((name, role)), form) for role in words.ROLES),
                cost(name, times),
                time_to_level(family, summary, times),
                f"{summary.band:.1f}×",
                *(
                    "-" if measure is None else f"{measure:.3g}"
                    for measure in (summary.loss, summary.condition_number, summary.curvature)
                ),
            ]
        )
    headers = [
        "normalization", "rate, scale, mode", form[0], "at a gain of 1",
        *(f"less {other}" for other in words.ROLES.values()),
        "time of a step", "epochs to plain's last", "band of rates", "train loss", "κ", "λ_max",
    ]  # fmt: skip
    return tabulate.tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def crosscheck_table(agreements):
    """A row for each method in each family, with the scores on all backends."""
    rows = {}
    for each in agreements:
        form = evidence.FORMS[settings.FAMILIES[each.family].test_score]
        key = each.family, each.optimizer, f"`{each.normalization}`", form[0]
        row = rows.setdefault(key, {"": words.with_interval(each.first, form)})
        p = f"p {each.p:.2g}"
        row[each.backend] = (
            f"{words.with_interval(each.second, form)} "
            f"({p if each.p >= evidence.LEVEL else f'**{p}**'})"
        )
    backends = list(dict.fromkeys(each.backend for each in agreements))
    table = [[*key, *(row.get(name, "-") for name in ("", *backends))] for key, row in rows.items()]
    headers = ["family", "optimizer", "normalization", "score", "the comparison", *backends]
    return tabulate.tabulate(table, headers, tablefmt="github", disable_numparse=True)


def progress_of(name, optimizer, records):
    """A sentence on what of a cell is still to run, or nothing."""
    missing = tuning.pending(name, optimizer, records)
    return f"\n\n*{len(missing)} runs or more are still to be made.*" if missing else ""


def conditions_of(everything):
    """Versions and machine, of which there may be several."""
    kinds = {
        environment.conditions(record) for records in everything.values() for record in records
    }
    return "\n".join(sorted(kinds))


EXPLANATION = """\
Each method got the same number of runs, at points of one low-discrepancy sequence over the
logarithm of the learning rate and, but for the networks without a method, over the logarithm of
the scale (initial scale of *scale tuned*, gain of a conditioned network) and the mode of the gain.
The best on validation data was trained again from five fresh seeds, which these scores are of:
mean ± half of the 95 % interval, on test data, a seed that diverged counting as 0. *Scale matched*
starts with the very kernels that row equilibration starts with at its best point, at a rate of its
own. *At a gain of 1* is the method as a layer has it by default, at the rate that is best for the
network without it: what a user gets first. Differences are paired by seed, with p of a paired
t-test, corrected for all comparisons of this page after Benjamini and Hochberg, bold below 0.05;
*best rival* is the best on the test data itself of the network alone, weight normalization, weight
standardization and spectral normalization. *Epochs to plain's last* are those until validation
reaches what the plain network ends with, a median, and in brackets the time they take over that of
its whole training. *Band of rates* is the factor between the extreme rates at which runs of the
tuning came within 1 % or 0.5 dB of the best; it is that of sampled points, of which a method with a
scale has as many as one without. κ is the median condition number over the numerical rank, λ_max
the largest eigenvalue of the Hessian of the loss after training, of one seed; *(edge)* marks a
choice at an edge of the ranges."""


CROSSCHECK = """\
The plain network and the conditioned ones without normalization of activations, trained on other
backends at the points that the comparison chose. Seeds mean other random numbers there: means are
compared by Welch's t-test, corrected after Benjamini and Hochberg for all rows of the table."""


def report(options):
    """Writes page, pictures and summary."""
    everything = read(options.results)
    if not everything:
        raise SystemExit(f"No lines in {options.results}. Run benchmarks/compare.py first.")
    options.output.mkdir(parents=True, exist_ok=True)
    found = {
        (name, optimizer): evidence.summaries(settings.FAMILIES[name], optimizer, records)
        for (name, optimizer), records in everything.items()
    }
    compared = evidence.comparisons(found)
    times = {name: step_times(options.results, name) for name in settings.FAMILIES}
    pictures.draw_overview(compared).savefig(options.output / "comparison.png", dpi=130)
    sections = []
    for name, family in settings.FAMILIES.items():
        cells = {key[1]: cell for key, cell in found.items() if key[0] == name}
        if not cells:
            continue
        pictures.draw(
            family, {o: (everything[name, o], cell) for o, cell in cells.items()}
        ).savefig(options.output / f"comparison-{name}.png", dpi=130)
        sections.append(f"## {TITLES[name]}\n\n![](comparison-{name}.png)")
        for optimizer, cell in cells.items():
            table = family_table(family, cell, compared[name, optimizer], times[name])
            rest = progress_of(name, optimizer, everything[name, optimizer])
            sections.append(f"### {optimizer}\n\n{table}{rest}")
    others = {path.name: read(path) for path in sorted(options.crosscheck.glob("*/"))}
    agreements = evidence.agreements(found, others)
    if agreements:
        sections += [
            "## Other backends",
            f"{CROSSCHECK}\n\n{crosscheck_table(agreements)}",
            "\n\n".join(conditions_of(records) for records in others.values()),
        ]
    told = words.sentences(found, compared, times)
    told += words.agreement(agreements)
    picture = "![Differences to the best rival]({}comparison.png)"
    summary = f"{picture}\n\n{words.summary_table(compared)}\n\n{told}"
    count = sum(map(len, everything.values()))
    page = [
        "# The comparison",
        f"`python benchmarks/compare.py && python benchmarks/report.py`: {count} runs\n\n"
        f"{conditions_of(everything)}",
        EXPLANATION,
        f"## Summary\n\n{summary.format('')}",
        *sections,
    ]
    path = options.output / "comparison.md"
    path.write_text("\n\n".join(page) + "\n", encoding="utf-8")
    if options.readme:
        folder = os.path.relpath(options.output, options.readme.parent)
        environment.replace_block(options.readme, "comparison", summary.format(f"{folder}/"))
    print(f"Saved {path}")


def parse(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    settings.add_results(parser)
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "docs", help="(%(default)s)")
    parser.add_argument(
        "--crosscheck",
        type=pathlib.Path,
        default=settings.RESULTS.parent / "crosscheck",
        help="folder with one folder of records for each other backend (%(default)s)",
    )
    parser.add_argument("--readme", type=pathlib.Path, help="file whose block is replaced")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    report(parse())
