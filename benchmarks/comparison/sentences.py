"""Sentences on a comparison, whose words and counts follow from its numbers."""

import collections
import statistics

from benchmarks.comparison import (
    equal_seconds,
    evidence,
    families,
    naming,
    search,
    significance,
)

# What a method is compared with, in words; "it" is the method.
ROLES = {
    "alone": "the network alone",
    "start": "that network with the method's own start",
    "tuned": "that network with tuned initial scale",
    "Frobenius": "Frobenius normalization",
    "best baseline": "the best baseline",
}
# Further comparisons, which have no column in the tables.
PHRASES = {
    **ROLES,
    "centered": "the same with centered rows",
    "constant": "the same with a constant multiplier",
}
OUTCOMES = {"win": "wins in", "loss": "loses in"}


def with_interval(scores, form):
    """Mean ± half of the 95 % interval."""
    _, unit, text = form
    values = [unit * score for score in scores.values()]
    if not values:
        return "-"
    return f"{text.format(sum(values) / len(values))} ± {text.format(evidence.interval(values))}"


def comparisons_of(compared, method, role):
    """Those of one method in one role: {(family, optimizer, base): significance.Comparison}."""
    return {
        (*where, naming.base_of(name)): comparison
        for where, cell in compared.items()
        for (name, kind), comparison in cell.items()
        if kind == role and name in (method, naming.with_base(naming.base_of(name), method))
    }


def outcomes(comparisons):
    """How many wins, ties and losses."""
    counts = collections.Counter(comparison.outcome for comparison in comparisons)
    return [counts[outcome] for outcome in ("win", "tie", "loss")]


def counted(comparisons):
    """Wins, ties and losses, for a cell of a table."""
    return " / ".join(map(str, outcomes(comparisons)))


def place(key):
    """Family, optimizer and normalization of activations, in words."""
    family, optimizer, base = key
    return f"{family}, {optimizer}" + ("" if base == families.PLAIN else f", {base} norm")


def outcomes_of(compared, method, role):
    """Where a method wins and loses, by how much, and in how many of all settings it ties.

    Nothing where it was not compared.
    """
    cells = comparisons_of(compared, method, role)

    def places(outcome):
        return [
            f"{place(key)} ({unit_of(key[0]) * comparison.difference:+.2f})"
            for key, comparison in cells.items()
            if comparison.outcome == outcome
        ]

    parts = [f"{verb} {'; '.join(places(o))}" for o, verb in OUTCOMES.items() if places(o)]
    ties = len(cells) - sum(map(len, map(places, OUTCOMES)))
    if ties:
        parts.append(f"ties in {ties} of {len(cells)} settings")
    return f"- `{method}` against {PHRASES[role]} {'. It '.join(parts)}." if parts else ""


def unit_of(family):
    """What a score is multiplied by for the reader."""
    return evidence.FORMS[families.FAMILIES[family].test_score][1]


def in_short(compared, times, methods=families.OURS):
    """How often methods win, tie and lose, what a step takes, and who always wins."""
    told, throughout, count = [], [], 0
    for method in methods:
        cells = comparisons_of(compared, method, "best baseline")
        if not cells:
            continue
        count = max(count, len(cells))
        wins, ties, losses = outcomes(cells.values())
        told.append(
            f"- `{method}` wins in {wins}, ties in {ties} and loses in {losses} of {len(cells)}"
            f"{cost_of_steps(method, cells, times)}."
        )
        if wins == len(cells):
            throughout.append(f"`{method}`")
    if not told:
        return ""
    settings = "setting" if count == 1 else "settings"
    winners = "No method wins everywhere"
    if throughout:
        verb = "wins" if len(throughout) == 1 else "win"
        winners = f"{' and '.join(throughout)} {verb} everywhere"
    return "\n".join(
        [
            "**In short**: after the same number of epochs, compared with "
            f"{ROLES['best baseline']} in {count} {settings} "
            "(task × optimizer × activation normalization):\n",
            *told,
            f"- {winners}.",
        ]
    )


def cost_of_steps(method, cells, times):
    """The ratio of a method's step time to that of the network alone, where known."""
    ratios = []
    for family, optimizer, base in cells:
        measured = times.get((family, optimizer))
        names = (naming.with_base(base, method), base)
        with_it, without = map(measured.of_step, names) if measured else (None, None)
        ratios += [with_it / without] if with_it and without else []
    if not ratios:
        return ""
    ends = dict.fromkeys(f"{ratio:.1f}" for ratio in (min(ratios), max(ratios)))
    return f"; its steps take {' to '.join(ends)} times as long as plain ones"


def configuration(key, chosen):
    """A name, with its optimizer where that is not the one of the setting."""
    optimizer, name = chosen
    return f"`{name}`" if optimizer == key[1] else f"`{name}`, {optimizer}"


def at_equal_seconds(chosen):
    """In how many settings the best of this package wins, ties and loses."""

    def told(are_any):
        own = [each.comparison for each in chosen if (each.key[1] == equal_seconds.ANY) == are_any]
        wins, ties, losses = outcomes(own)
        return f"wins in {wins}, ties in {ties} and loses in {losses} of {len(own)}"

    return (
        "**At equal seconds**, the best configuration of this package is compared with the best of "
        "all others, other starts and Keras' Muon included. With the optimizer of the setting it "
        f"{told(False)} settings. With any optimizer on both sides it {told(True)} (task × "
        "activation normalization)."
    )


def by_family(compared):
    """Wins, ties and losses of each method in each task."""
    told = []
    for method in families.OURS:
        cells = comparisons_of(compared, method, "best baseline")
        counts = []
        for family in dict.fromkeys(family for family, *_ in cells):
            own = [comparison for key, comparison in cells.items() if key[0] == family]
            counts.append(f"{family} {counted(own)}")
        if counts:
            told.append(
                f"- `{method}` against {ROLES['best baseline']}, by task: {', '.join(counts)}."
            )
    return "\n".join(told)


def fifty_layers(found, times):
    """How deep networks train without normalization layers, with and without conditioning."""
    told = []
    for (family, optimizer), cell in found.items():
        ours = [name for name in families.OURS if name in cell and cell[name].scores]
        if family != "deep50" or not ours or not cell.get(families.PLAIN, None):
            continue
        form = evidence.FORMS[families.FAMILIES[family].test_score]
        best = max(ours, key=lambda name: cell[name].mean)
        scores = {
            "plain": families.PLAIN,
            "plain with matched initial scale": f"{families.PLAIN}, {families.MATCHED}",
            "plain with tuned initial scale": f"{families.PLAIN}, {families.TUNED}",
            f"with `{best}`, the best of the conditioned": best,
        }
        numbers = [
            f"{with_interval(cell[name].scores, form)} {words}"
            for words, name in scores.items()
            if name in cell
        ]
        with_it, without = map(times[family, optimizer].of_step, (best, families.PLAIN))
        cost = ""
        if with_it and without:
            cost = (
                f"; a step takes {1000 * with_it:.1f} ms with it, {1000 * without:.1f} ms without"
            )
        told.append(
            f"- Fifty layers without normalization layers, {optimizer}, {form[0]}: "
            f"{', '.join(numbers)}{cost}."
        )
    return told


def findings(found, compared, times):
    """What the numbers show.

    Args:
        found: {(family, optimizer): {name: evidence.Summary}}.
        compared: What `significance.comparisons` returns.
        times: {(family, optimizer): `times.Times`}.
    """
    rows = families.ROWS
    told = [outcomes_of(compared, rows, role) for role in ("start", "tuned", "Frobenius")]
    told += [outcomes_of(compared, method, "start") for method in families.OURS[1:]]
    told += [outcomes_of(compared, method, "best baseline") for method in families.OURS]
    told.append(outcomes_of(compared, families.UNCENTERED, "centered"))
    told += [outcomes_of(compared, method, "constant") for method in families.DIFFERENTIATED]
    told += fifty_layers(found, times)
    return "\n".join(filter(None, told))


def stopping(everything):
    """When a run of the search is stopped, and what this changes."""
    count, changed = evidence.searches_run_in_full(everything)
    return (
        f"A run of the search is stopped after {100 * search.PATIENCE:.0f} % of its epochs or "
        f"later if its best validation score is below {100 * search.HOPELESS:.0f} % of that of the "
        f"best run before it at the same epoch. {count} searches were run without this rule, and "
        f"the rule would have changed the best point of {changed or 'none'} of them."
    )


def agreement(agreements):
    """Whether other backends score as the comparison's does."""
    if not agreements:
        return ""
    backends = list(dict.fromkeys(each.backend for each in agreements))
    apart = [each for each in agreements if each.p < significance.LEVEL]
    gaps = [abs(mean(each.second) - mean(each.first)) / tolerance(each) for each in agreements]
    where = "; ".join(
        f"{each.family}, {each.optimizer}, `{each.normalization}`, {each.backend}" for each in apart
    )
    return (
        f"\n- On {' and '.join(backends)}, {len(agreements) - len(apart)} of {len(agreements)} "
        f"means agree with the comparison's within noise{f', but not {where}' if where else ''}; "
        f"the median gap is {statistics.median(gaps):.2f} % or half decibels."
    )


def mean(scores):
    """Of scores by seed."""
    return statistics.mean(scores.values())


def tolerance(each):
    """A per cent or half a decibel, as scores are kept."""
    return evidence.TOLERANCE[families.FAMILIES[each.family].test_score]
