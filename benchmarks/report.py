"""Tables and pictures of a comparison, from its lines alone.

Writes docs/comparison.md with a table for each family and optimizer, a picture for each family,
and the summary in the README. Runs on whatever lines there are, and says what is missing.
"""

import argparse
import json
import os
import pathlib

import environment
import evidence
import lines
import pictures
import settings
import tables
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


def step_times(folder):
    """What step_times.py measured, by family: empty where it has not."""
    path = folder / "step-times.json"
    measured = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {name: tables.Times.of(measured.get(name)) for name in settings.FAMILIES}


def progress_of(name, optimizer, records):
    """A sentence on what of a cell is still to run, or nothing."""
    missing = tuning.pending(name, optimizer, records)
    return f"\n\n*{len(missing)} runs or more are still to be made.*" if missing else ""


def unfinished(everything):
    """Which families are not in the summary, or not with all their runs; or nothing."""
    names = [
        name
        for name in settings.FAMILIES
        if any(tuning.pending(name, o, everything.get((name, o), [])) for o in settings.OPTIMIZERS)
    ]
    return f"\n- Not run yet, or not to the end: {', '.join(names)}." if names else ""


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
Where winners lay at an edge of a range, it grew for all. The best point on validation data and
some around it were trained from another seed; the best of these was chosen, and trained again
from five fresh seeds, which these scores are of: mean ± half of the 95 % interval, on test data,
and the worst seed, one that diverged counting as 0. *Scale matched* starts with the very kernels
that row equilibration starts with at its chosen point, at a rate of its own. *At a gain of 1* is
the method as a layer has it by default, at the rate that was chosen for the network without it:
what a user gets first. Columns with *less* are differences, paired by seed, to the network alone,
to that with matched and with tuned initial scale, to Frobenius normalization, and to the best
rival, which is the best on the test data itself of the network alone, weight normalization, weight
standardization and spectral normalization; with p of a paired t-test, corrected for all
comparisons of this page after Benjamini and Hochberg, bold below 0.05. *(edge)* marks a choice at
an edge of the ranges.

*To plain's last* is what training takes until validation reaches what the plain network ends with:
the median of epochs, and in brackets steps, seconds on one core, and their part of the plain
network's whole training. *Band of rates* is the factor between the extreme rates at which runs of
the first search came within 1 % or 0.5 dB of its best; it is that of sampled points, of which a
method with a scale has as many as one without. κ is the median condition number over the numerical
rank, λ_max the largest eigenvalue of the Hessian of the loss after training, of one seed."""


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
    times = step_times(options.results)
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
            scores = tables.scores(family, cell, compared[name, optimizer])
            training = tables.training(family, cell, times[name])
            rest = progress_of(name, optimizer, everything[name, optimizer])
            sections.append(f"### {optimizer}\n\n{scores}\n\n{training}{rest}")
    others = {path.name: read(path) for path in sorted(options.crosscheck.glob("*/"))}
    agreements = evidence.agreements(found, others)
    if agreements:
        sections += [
            "## Other backends",
            f"{CROSSCHECK}\n\n{tables.crosscheck(agreements)}",
            "\n\n".join(conditions_of(records) for records in others.values()),
        ]
    told = words.sentences(found, compared, times)
    told += words.agreement(agreements)
    told += unfinished(everything)
    picture = "![Differences to the best rival]({}comparison.png)"
    summary = "\n\n".join([picture, tables.best(found, compared), tables.counts(compared), told])
    records = [record for own in everything.values() for record in own]
    hours = sum(record["seconds"] for record in records) / 3600
    page = [
        "# The comparison",
        f"`python benchmarks/compare.py && python benchmarks/report.py`: {len(records)} runs, "
        f"{hours:.1f} hours of one core\n\n"
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
