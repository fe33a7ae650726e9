"""Tables and pictures of a comparison, from its lines alone.

Writes docs/results/comparison.md with a table for each family and optimizer, a picture for each
family, and the summary in the README. Runs on whatever lines there are, and says what is missing.
"""

import itertools
import pathlib

from benchmarks.comparison import (
    attribution,
    choice,
    equal_seconds,
    evidence,
    families,
    first_half,
    naming,
    pictures,
    sentences,
    significance,
    tables,
    times,
    tuning,
)
from benchmarks.shared import arguments, environment, markdown, records

# One method of each kind, for a summary.
IN_README = (families.ROWS, families.NEWTON, families.STORED, families.UPDATES)


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
    return f"*Not run yet, or not to the end: {', '.join(names)}.*" if names else ""


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
        f"{later:.1f} hours for variants and for tasks that came later"
    )


EXPLANATION = """\
**Settings.** A setting is a task, an optimizer and a normalization of activations. Tables and
pictures name tasks as the table above does. Muon is Keras' own, which updates matrices by
orthogonal directions and all other weights, the last layer included, by AdamW. Keras' Muon updates
convolutions by AdamW, so that the CNN has no such setting. Fifty layers and the three other starts
of twenty layers have fewer configurations with Muon.

**Search.** Each configuration gets the same number of runs, at the points of one low-discrepancy
sequence. Its dimensions are the logarithm of the learning rate, the logarithm of the scale and the
mode of the gain, or the factor of the penalty for the regularizer. Networks alone have only the
learning rate. The ranges began around the best learning rates of the plain and the row-equilibrated
network, and grew up to three times at edges where most of the best points lay. Configurations that
came later were tuned in the final ranges. *(edge)* marks a best point at the edge of a range. The
best point on validation data and five points around it are then trained from another seed. The best
of these six is tested with five new seeds. {stopping}

**Scale.** The scale multiplies the initial kernels, and Keras' own scale is 1. With the modes
*initial_norm* and *kernel_norm* the gain keeps the initial or the current norm of the kernel. With
*fixed* and *scalar*, which is trainable, the scale is the gain itself. The conditioned kernel then
has rows of unit norm, singular values near 1 or, for the polynomial, its own largest singular
value.

**Baselines.** *scale tuned* is the network alone with tuned scale. *scale matched* starts from the
kernels that row equilibration has at its best point. *at_start* starts from the kernels that a
method makes, and trains as the network alone. The orthogonal initializer and the orthogonal
regularizer are those of Keras. The former keeps the norm of the kernel, and replaces the kernels of
networks that were badly scaled, trained or pruned before.

**Methods.** Newton's iteration and the polar express of one step center rows. The multiplier of
matrix methods is constant in the gradient, except for *differentiated*. *stored* applies one
Newton step to the stored kernels after every eighth update. It starts from the initial kernels with
all singular values made equal.
*orthogonal_updates* makes the updates of kernels orthogonal by three steps of the polar express and
keeps their norm. With Muon these steps take the place of Muon's own, in all layers but the last,
convolutions and attention included. *everywhere* includes first and last layers, and *constraint*
equilibrates the stored kernels after each update.

**Scores.** Scores are the mean and half of the 95 % confidence interval of five seeds on test data.
A seed that diverges scores 0. Seeds change initial weights and the order of the data. *At a gain of
1* is the method with a gain of 1 at the best learning rate of the network alone.

**Tests.** The columns "vs." give the difference of means, paired by seed. The best baseline is the
best *on test data* of the network alone, weight normalization, weight standardization, spectral
normalization and the orthogonal regularizer, which is the hardest choice to beat. p is that of a
paired t-test, corrected for all tests of this page (Benjamini and Hochberg). Below 0.05 it is a win
or a loss and bold. A tie means that five seeds show no difference.

**Measures.** *To plain's last* is the median number of epochs until validation reaches the final
score of the plain network, with its steps, its seconds on one core, and the ratio to the plain
network's whole training. *Band of rates* is the ratio of the highest to the lowest learning rate
whose run comes within 1 % or 0.5 dB of the best. κ is the median effective condition number of the
conditioned kernels. λ_max is the largest eigenvalue of the Hessian of the loss after training, of
one seed and on validation samples. It refers to the stored weights, so that it compares networks
only roughly."""


SECONDS = """\
Each setting compares the best configuration of this package with the best of all others, at the
training time of the plain network. The others are the network alone with any start or scale, the
baselines, and Muon with these. *Any optimizer* lets both sides choose the optimizer. A
configuration with longer steps gets fewer steps in each epoch. The three best of each side on
validation data are trained so, and the best of these, again on validation data, is compared. p is
corrected for the rows of this table."""

STARTS = """\
The start column is a plain network with the method's own initial kernels, tuned with the same
budget. Its share of the method's gain costs nothing. Stored kernels, Newton's iteration without
centering and orthogonal updates from an orthogonal start have the orthogonal initializer there.
Orthogonal updates alone have the plain start with tuned scale. A method whose gain is not
significant has no share."""

PARTS = """\
Each row is a win over the network alone. The parts are the gains of plain networks with the
method's start and with tuned scale, and of weight standardization, which centers and scales rows
in each step. The remainder is the method's gain over the best of them: the effect of
well-conditioned kernels, or of orthogonal updates, during training. The last column is the
configuration with the shortest step whose mean lies within the confidence interval of the
method."""


FIRST_HALF = """\
Newton's iteration conditions the kernels in the first half of the epochs. Then `FoldConditioning`
folds them, and the plain network trains on. *First half* and *all epochs* have the same point, the
best one whose gain keeps the norm of the kernel, so that the learning rate has the same effect
before and after. p is corrected for all tests of this table."""

CHOICES = """\
A cell compares a kind of conditioning with the network alone, normalization layers included. It has
the gain after the same number of epochs, and the time of a step divided by that of the network
alone. Each kind has the configuration with the best validation score:

- *start*: another start of the plain network, orthogonal, *by a method* of this package, or with
  tuned *scale*
- *baselines*: weight normalization, weight standardization, spectral normalization or the
  orthogonal regularizer
- *row equilibration*: in the forward pass
- *stored*: Newton steps on the stored kernels, after every eighth update, on *centered* rows where
  a cell says so
- *forward*: a method that narrows the spectrum, in the forward pass: Newton's iteration, or the one
  that the cell names
- *updates*: orthogonal updates, also from an orthogonal *start* or with weight standardization in
  the forward pass, *standardized*

Bold differences are significant, with p corrected for all cells. Several configurations may be as
good as the best one, within its confidence interval. The choice is the one of them with the
shortest step. It is nothing where no kind has a significant gain. Muon trains convolutions by
AdamW, so that the CNN has no row with it. In some settings the network alone fails for some seeds:
they score less than half of the best seed. Its spread then hides every gain, and a kind with a
higher mean counts as better. With Muon, orthogonal updates replace Muon's own five iterations by
three steps, so that a step can take less time than a plain one."""

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
    # With a baseline still to be tested, the best baseline would be too easy to beat.
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
        title = tables.NETWORKS[name]
        sections.append(f"## {title} (`{name}`)")
        # One that is tuned but not tested yet would be an empty picture.
        tested = {o: cell for o, cell in cells.items() if any(s.scores for s in cell.values())}
        if tested:
            runs = {o: everything[name, o] for o in tested}
            seconds = {o: measured[name, o] for o in tested}
            drawn = {
                f"comparison-{name}.png": pictures.scores(title, family, tested),
                f"comparison-{name}-seconds.png": pictures.curves(title, family, runs, seconds),
            }
            for path, figure in drawn.items():
                figure.savefig(options.output / path, dpi=130)
            scores, curves = drawn
            sections += [f"![Test scores]({scores})", f"![Validation over seconds]({curves})"]
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
    picture = "![Differences from the best baseline](comparison.png)"
    gains = attribution.gains(complete, compared, measured)
    outcomes = equal_seconds.outcomes(everything, complete, measured)
    chosen = choice.choices(complete, measured)
    parts = [
        sentences.in_short(compared, measured),
        outcomes and sentences.at_equal_seconds(outcomes),
        picture,
        "The best configuration without conditioning and the best one with it, whatever the "
        "normalization of activations:",
        tables.best(found, compared),
    ]
    summary = "\n\n".join(filter(None, parts))
    page = [
        "# The comparison",
        "`python -m benchmarks.comparison.run && python -m benchmarks.comparison.report`: "
        f"{cost_of(everything)}\n\n{conditions_of(everything)}",
        f"## Tasks\n\n{tables.tasks()}",
        f"## Method\n\n{EXPLANATION.replace('{stopping}', sentences.stopping(everything))}",
        f"## Summary\n\n{summary}",
        unfinished(everything),
        f"{tables.counts(compared)}\n\n{told}\n{sentences.by_family(compared)}".strip(),
        *(["## Choice", CHOICES, tables.choices(chosen)] if chosen else []),
        *after_the_summary(found, gains, outcomes, measured),
        *condition_then_stop(everything),
        *sections,
    ]
    path = options.output / "comparison.md"
    path.write_text("\n\n".join(filter(None, page)) + "\n", encoding="utf-8")
    brief = [sentences.in_short(compared, measured, IN_README)]
    brief += [sentences.at_equal_seconds(outcomes)] if outcomes else []
    blocks = {
        "comparison": "\n\n".join(brief),
        "recommendations": tables.recommendations(chosen),
        "choice": f"{CHOICES}\n\n{tables.choices(chosen)}",
    }
    markdown.replace_blocks(options.documents, blocks)
    print(f"Saved {path}")


def after_the_summary(found, gains, outcomes, measured):
    """The sections on equal seconds, on starts and on what gains consist of, where known."""
    sections = []
    if outcomes:
        sections += ["## Equal seconds", SECONDS, tables.equal_seconds(outcomes)]
    if gains:
        sections += ["## Share of the gain that is the start", STARTS, tables.starts(gains, found)]
        sections += ["## Parts of the gains", PARTS, tables.attribution(gains, measured)]
    return sections


def condition_then_stop(everything):
    """The section on conditioning in the first half of the epochs, where that was run."""
    halves = first_half.outcomes(everything)
    if not halves:
        return []
    return ["## Conditioning in the first half", FIRST_HALF, tables.first_half(halves)]


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
    parser.add_argument(
        "--documents",
        type=pathlib.Path,
        nargs="*",
        default=[],
        help="files with blocks named comparison, recommendations or choice, which are replaced",
    )
    return parser.parse_args(words)


if __name__ == "__main__":
    report(parse())
