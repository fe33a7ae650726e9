"""Tables and pictures of a comparison, from its lines alone.

Writes docs/results/comparison.md with a table for each family and optimizer, a picture for each
family, and the summary in the README. Runs on whatever lines there are, and says what is missing.
"""

import itertools
import os
import pathlib

from benchmarks.comparison import (
    attribution,
    equal_seconds,
    evidence,
    families,
    naming,
    pictures,
    sentences,
    significance,
    tables,
    times,
    tuning,
)
from benchmarks.shared import arguments, environment, markdown, records

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
    for name in families.FAMILIES:
        for record in records.read(folder / f"{name}.jsonl"):
            found.setdefault((name, record["optimizer"]), []).append(record)
    return found


def progress_of(name, optimizer, records):
    """A sentence on what of a cell is still to run, or nothing."""
    missing = tuning.pending(name, optimizer, records)
    return f"*{len(missing)} runs or more are still to be made.*" if missing else ""


def unfinished(everything):
    """Which families are not in the summary, or not with all their runs; or nothing."""
    names = [
        name
        for name, family in families.FAMILIES.items()
        if any(tuning.pending(name, o, everything.get((name, o), [])) for o in family.rates)
    ]
    return f"\n- Not run yet, or not to the end: {', '.join(names)}." if names else ""


def conditions_of(everything):
    """Versions and machine, of which there may be several."""
    return environment.conditions(itertools.chain.from_iterable(everything.values()))


def cost_of(everything):
    """How many runs and hours, and how many of these what was tried afterwards took."""
    records = [record for own in everything.values() for record in own]
    afterwards = [
        record
        for record in records
        if record["family"] in families.NEXT_FAMILIES
        or naming.without_base(record["normalization"]) in families.VARIANTS
    ]
    hours, later = (sum(r["seconds"] for r in some) / 3600 for some in (records, afterwards))
    return (
        f"{len(records)} runs, {hours:.1f} hours of one core, of which {len(afterwards)} runs and "
        f"{later:.1f} hours for what was tried afterwards"
    )


EXPLANATION = """\
**The search.** Each method got the same number of runs, at points of one low-discrepancy sequence
over the logarithm of the learning rate and, but for the networks without a method, over the
logarithm of the scale and the mode of the gain. While winners lay at edges of the ranges, the one
at which most of them lay was moved for all, up to three times; *(edge)* marks a choice at an edge
that was left. The ranges began around what a scan of the plain and the row-equilibrated network
had found. The best point on validation data and some around it were trained from another seed;
the best of these was chosen, and trained again from five fresh seeds.

**The scale** is the initial scale of kernels, as a factor to Keras' own: of *scale tuned*, of
weight normalization, and where the mode is *initial_norm* (the gain keeps the kernel's initial
norm) or *kernel_norm* (its present norm). It is the gain itself where the mode is *fixed* or
*scalar* (fixed and trainable), on what the method makes of a kernel: rows of unit norm, singular
values near 1, or, of the polynomial, the largest one that the kernel has itself: one range of
scales is not the same for all. *Scale matched* starts with the very kernels that row equilibration
starts with at its chosen point, at a rate of its own.

**The scores** are mean ± half of the 95 % interval of five seeds, on test data, and the worst
seed, one that diverged counting as 0. Seeds change initial weights and order; training,
validation and test data stay the same. *At a gain of 1* is the method as one of the package's
layers has it by default (but weight normalization, which begins at the kernel's own norm), at the
rate that was chosen for the network without it.

**The comparisons.** Columns with *less* are differences, paired by seed, to the network alone, to
that with matched and with tuned initial scale, to Frobenius normalization, and to the best rival,
which is the best *on the test data itself* of the network alone, weight normalization, weight
standardization and spectral normalization: the hardest to beat. p is of a paired t-test, corrected
for all comparisons of this page after Benjamini and Hochberg, which holds for tests that are
independent or depend on each other positively, as those against a common rival do; bold below
0.05, which is called a win or a loss. A tie says that five seeds show no difference, not that
there is none. The *best without* is the best of plain networks, controls and rivals, and the *best
with conditioning* of row equilibration, Newton's iteration and the polynomial, each with or without
normalization of activations and both chosen by the validation scores of the five seeds.

**Newton's iteration centers rows**, as weight standardization does, since that is part of the
published method. How much of its effect is that of the spectrum is told by
*uncentered_newton_orthogonalization*. This and what stands below it in the tables was tried after
a first look at the others: methods one after the other; *everywhere*, on first and last layers as
well, which no rival touches; *constraint*, which equilibrates the stored kernels after each update.
Fifty layers and the other starts of training came then, too; in these starts weight
standardization and spectral normalization came last, tuned in the ranges that the others had
settled on.

**The measures.** *To plain's last* is what training takes until validation reaches what the plain
network ends with: the median of epochs, and in brackets steps, seconds on one core, and their part
of the plain network's whole training; times are of a gain that is fixed. *Band of rates* is the
factor between the extreme rates at which runs of the first search came within 1 % or 0.5 dB of its
best; it is that of sampled points, of which a method with a scale has as many as one without. κ is
the median condition number over the numerical rank. λ_max is the largest eigenvalue of the Hessian
of the loss on validation samples after training, of one seed, to some per cent: in the weights as
they are stored, so that it falls where they have grown, and compares networks only roughly."""


SECONDS = """\
In each setting, the best configuration of this package and the best of all others, which are plain
networks with any start, rivals, and Muon with any of these, in as many seconds of training as the
plain network takes for its epochs: the steps of each epoch are so many fewer. Both are chosen by
validation after that time, among the first three of each side. p as above, corrected for the rows
of this table."""

STARTS = """\
Plain networks that start from the kernels that a method makes, tuned by the same budget. What they
gain over the plain network is the part of the method's gain that costs nothing. For stored kernels
and for Newton's iteration without centering, the start is orthogonal."""

PARTS = """\
Of each win over the network alone: what the plain network gains by the method's start, by its scale
alone, and by rows that are centered and scaled in every step (weight standardization); and what the
method has over the best of these, which is the spectrum during training. The last column names the
configuration with the shortest step whose mean lies within the interval of the method's."""


CROSSCHECK = """\
The plain network and the conditioned ones without normalization of activations, trained on other
backends at the points that the comparison chose. Seeds mean other random numbers there: means are
compared by Welch's t-test, corrected after Benjamini and Hochberg for all rows of the table."""


def report(options):
    """Writes page, pictures and summary."""
    everything = read(options.results)
    if not everything:
        raise SystemExit(
            f"No lines in {options.results}. Run `python -m benchmarks.comparison.run` first."
        )
    options.output.mkdir(parents=True, exist_ok=True)
    found = {
        (name, optimizer): evidence.summaries(families.FAMILIES[name], optimizer, records)
        for (name, optimizer), records in everything.items()
    }
    # With a rival still to be tested, the best rival would be too easy to beat.
    complete = {
        key: cell for key, cell in found.items() if not tuning.pending(*key, everything[key])
    }
    compared = significance.comparisons(complete)
    measured = times.read(options.results)
    pictures.draw_overview(compared).savefig(options.output / "comparison.png", dpi=130)
    sections = []
    for name, family in families.FAMILIES.items():
        cells = {key[1]: cell for key, cell in found.items() if key[0] == name}
        if not cells:
            continue
        sections.append(f"## {TITLES[name]}")
        # One that is tuned but not tested yet would be an empty picture.
        tested = {o: cell for o, cell in cells.items() if any(s.scores for s in cell.values())}
        if tested:
            pictures.draw(
                family, {o: (everything[name, o], cell) for o, cell in tested.items()}
            ).savefig(options.output / f"comparison-{name}.png", dpi=130)
            sections.append(f"![](comparison-{name}.png)")
        for optimizer, cell in cells.items():
            sections.append(f"### {optimizer}")
            if optimizer in tested:
                sections.append(tables.scores(family, cell, compared.get((name, optimizer), {})))
                sections.append(tables.training(family, cell, measured[name, optimizer]))
            rest = progress_of(name, optimizer, everything[name, optimizer])
            if rest:
                sections.append(rest)
    others = {path.name: read(path) for path in sorted(options.crosscheck.glob("*/"))}
    agreements = significance.agreements(found, others)
    if agreements:
        sections += [
            "## Other backends",
            f"{CROSSCHECK}\n\n{tables.crosscheck(agreements)}",
            "\n\n".join(conditions_of(records) for records in others.values()),
        ]
    told = sentences.findings(complete, compared, measured)
    told += sentences.agreement(agreements)
    told += unfinished(everything)
    picture = "![Differences to the best rival]({}comparison.png)"
    gains = attribution.gains(complete, compared, measured)
    outcomes = equal_seconds.outcomes(everything, complete, measured)
    summary = "\n\n".join(
        filter(
            None,
            [
                sentences.in_short(compared, measured),
                picture,
                tables.best(found, compared),
                tables.counts(compared),
                told,
            ],
        )
    )
    page = [
        "# The comparison",
        "`python -m benchmarks.comparison.run && python -m benchmarks.comparison.report`: "
        f"{cost_of(everything)}\n\n{conditions_of(everything)}",
        EXPLANATION,
        f"## Summary\n\n{summary.format('')}\n{sentences.by_family(compared)}".rstrip(),
        *after_the_summary(found, gains, outcomes, measured),
        *sections,
    ]
    path = options.output / "comparison.md"
    path.write_text("\n\n".join(page) + "\n", encoding="utf-8")
    if options.readme:
        folder = os.path.relpath(options.output, options.readme.parent)
        markdown.replace_block(options.readme, "comparison", summary.format(f"{folder}/"))
    print(f"Saved {path}")


def after_the_summary(found, gains, outcomes, measured):
    """The sections on equal seconds, on starts and on what gains consist of, where known."""
    sections = []
    if outcomes:
        told = sentences.at_equal_seconds(outcomes)
        sections += ["## Equal seconds", SECONDS, told, tables.equal_seconds(outcomes)]
    if gains:
        sections += ["## Share of the gain that is the start", STARTS, tables.starts(gains, found)]
        sections += ["## Parts of the gains", PARTS, tables.attribution(gains, measured)]
    return sections


def parse(words=None):
    parser = arguments.parser("benchmarks.comparison.report", __doc__)
    arguments.add_results(parser, "comparison")
    parser.add_argument("--output", type=pathlib.Path, default=markdown.PAGES, help="(%(default)s)")
    parser.add_argument(
        "--crosscheck",
        type=pathlib.Path,
        default=records.RESULTS / "crosscheck",
        help="folder with one folder of records for each other backend (%(default)s)",
    )
    parser.add_argument("--readme", type=pathlib.Path, help="file whose block is replaced")
    return parser.parse_args(words)


if __name__ == "__main__":
    report(parse())
