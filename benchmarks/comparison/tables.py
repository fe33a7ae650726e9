"""The tables of a comparison, as GitHub's Markdown, from what `evidence` computes."""

import math

from benchmarks.comparison import evidence, families, naming, sentences, significance
from benchmarks.shared import markdown

# The kinds of `choice.KINDS`, as headers of a table.
KINDS = {
    "start": "start",
    "baseline": "baselines",
    "rows": "row equilibration",
    "stored": "stored",
    "forward": "forward",
    "updates": "updates",
}


def chosen(summary):
    """The point at which a method was tested."""
    point = summary.point
    parts = [f"{point['rate']:.2g}"]
    if not naming.is_matched(summary.normalization):
        parts += [f"{point['scale']:.2g}"] if point["scale"] != 1.0 else []
        parts += [point["mode"]] if point["mode"] else []
    return ", ".join(parts) + (" (edge)" if summary.at_edge else "")


def diverged(count):
    """How many runs diverged, where any did."""
    return f" ({count} diverged)" if count else ""


def against(comparison, unit):
    """A difference with its p, bold where it is one at the level of 5 %."""
    if comparison is None:
        return ""
    # Two digits of p are enough, and a p of 0 is none.
    p = "<0.001" if comparison.p < 0.001 else f"{comparison.p:.2g}"
    text = f"{unit * comparison.difference:+.2f} (p {p})"
    return f"**{text}**" if comparison.outcome != "tie" else text


def scores(family, found, compared):
    """A row for each method: what was chosen, its scores, and how it stands to the others."""
    form = evidence.FORMS[family.test_score]
    label, unit, text = form
    rows = []
    for name, summary in found.items():
        worst = min(summary.scores.values(), default=None)
        rows.append(
            [
                f"`{name}`",
                chosen(summary),
                sentences.with_interval(summary.scores, form) + diverged(summary.failed),
                "-" if worst is None else text.format(unit * worst),
                sentences.with_interval(summary.default, form) + diverged(summary.default_failed),
                *(against(compared.get((name, role)), unit) for role in sentences.ROLES),
            ]
        )
    headers = ["normalization", "rate, scale, mode", label, "worst", "at a gain of 1"]
    return markdown.table(rows, [*headers, *(f"vs. {role}" for role in sentences.ROLES)])


def training(family, found, times):
    """A row for each method: its cost, its search, and what training came to."""
    rows = []
    for name, summary in found.items():
        step, plain = times.of_step(name), times.of_step(families.PLAIN)
        measures = summary.loss, summary.condition_number, summary.curvature
        rows.append(
            [
                f"`{name}`",
                f"{1000 * step:.1f} ms ({step / plain:.2f}×)" if step and plain else "-",
                to_level(family, summary, times),
                f"{summary.band:.1f}×",
                f"{summary.searched}{diverged(summary.diverged)}",
                *("-" if measure is None else f"{measure:.3g}" for measure in measures),
            ]
        )
    headers = ["normalization", "time of a step", "to plain's last", "band of rates", "search"]
    return markdown.table(rows, [*headers, "train loss", "κ", "λ_max"])


def to_level(family, summary, times):
    """What training takes until the plain network's last quality."""
    if summary.epochs is None:
        return "-"
    text = f"{summary.epochs:.1f} epochs"
    step, plain = times.of_step(summary.normalization), times.of_step(families.PLAIN)
    if step and plain:
        steps = times.steps * summary.epochs
        part = step * summary.epochs / (plain * family.options().epochs)
        text += f" ({steps:.0f} steps, {step * steps:.2g} s, {part:.2f}×)"
    return text


def best(found, compared):
    """In each setting, the best with conditioning beside the best without, controls included."""
    rows = []
    for (family, optimizer), cell in compared.items():
        for (name, role), comparison in cell.items():
            if role != "best of all":
                continue
            form = evidence.FORMS[families.FAMILIES[family].test_score]
            cells = []
            for each in (comparison.second, name):
                own = found[family, optimizer][each].scores
                cells.append(f"{sentences.with_interval(own, form)} `{each}`")
            rows.append([family, optimizer, form[0], *cells, against(comparison, form[1])])
    headers = ["task", "optimizer", "score", "best without", "best with conditioning"]
    return markdown.table(rows, [*headers, "difference"])


def counts(compared):
    """Wins, ties and losses of each method against the baselines."""
    rows = []
    for method in (*families.OURS, *families.VARIANTS):
        cells = [
            sentences.comparisons_of(compared, method, role).values() for role in sentences.ROLES
        ]
        if any(cells):
            rows.append(
                [f"`{method}`", *(sentences.counted(cell) if cell else "" for cell in cells)]
            )
    return markdown.table(rows, ["won / tied / lost against", *sentences.ROLES.values()])


def equal_seconds(outcomes):
    """The best of this package beside the best of all others, in each setting."""
    rows = []
    for outcome in outcomes:
        form = evidence.FORMS[families.FAMILIES[outcome.key[0]].test_score]
        cells = [
            f"{sentences.with_interval(scores, form)} {sentences.configuration(outcome.key, each)}"
            for each, scores in zip(
                (outcome.theirs, outcome.ours), outcome.scores[::-1], strict=True
            )
        ]
        difference = against(outcome.comparison, form[1])
        rows.append([sentences.place(outcome.key), form[0], *cells, difference])
    headers = ["setting", "score", "best without this package", "best with it", "difference"]
    return markdown.table(rows, headers)


def first_half(outcomes):
    """Scores without conditioning, with it in the first half of the epochs, and in all."""
    rows = []
    for outcome in outcomes:
        form = evidence.FORMS[families.FAMILIES[outcome.key[0]].test_score]
        scores = [
            sentences.with_interval(own, form)
            for own in (outcome.plain, outcome.half, outcome.whole)
        ]
        differences = [against(outcome.comparisons[role], form[1]) for role in ("plain", "whole")]
        rows.append([sentences.place(outcome.key), *scores, *differences])
    headers = ["setting", "plain", "first half", "all epochs", "first half vs. plain"]
    return markdown.table(rows, [*headers, "first half vs. all epochs"])


def starts(gains, found):
    """What plain networks gain that start from a method's kernels, beside the method's own gain."""
    rows = []
    for gain in gains:
        family, optimizer, _ = gain.key
        form = evidence.FORMS[families.FAMILIES[family].test_score]
        cell = found[family, optimizer]
        scores = [
            sentences.with_interval(cell[name].scores, form)
            for name in (gain.plain, gain.start, gain.method)
        ]
        share = "not significant"
        if gain.is_win:
            share = f"{100 * gain.share_of_start:.0f} %" if gain.of_start > 0.0 else "none"
        rows.append(
            [sentences.place(gain.key), f"`{naming.without_base(gain.method)}`", *scores, share]
        )
    headers = ["setting", "method", "plain", "plain, from the method's start", "method"]
    return markdown.table(rows, [*headers, "share of the start"])


def attribution(gains, times):
    """What each gain consists of, and the cheapest configuration that keeps it."""
    rows = []
    for gain in gains:
        if not gain.is_win:
            continue
        unit = sentences.unit_of(gain.key[0])
        parts = gain.total, gain.of_start, gain.of_scale, gain.of_centering, gain.of_spectrum
        rows.append(
            [
                sentences.place(gain.key),
                f"`{naming.without_base(gain.method)}`",
                *(f"{unit * part:+.2f}" for part in parts),
                cost(gain.method, gain, times),
                cost(gain.cheapest, gain, times),
            ]
        )
    headers = ["setting", "method", "gain", "start alone", "scale alone", "centering and scale"]
    headers += ["remainder", "cost of a step", "cheapest that keeps it"]
    return markdown.table(rows, headers)


def cost(name, gain, times):
    """A name with the time of its step over the plain network's, where known."""
    family, optimizer, _ = gain.key
    measured = times.get((family, optimizer))
    names = name, gain.plain
    step, plain = (measured.of_step(each) if measured and each else None for each in names)
    ratio = f"{step / plain:.2f}×" if step and plain else "-"
    return ratio if name == gain.method else f"`{name}` ({ratio})" if name else "-"


def tasks():
    """The networks, their data and their training."""
    rows = []
    for name, family in families.FAMILIES.items():
        options = family.options()
        data, steps = _data(options)
        training = [options.batch_size, options.epochs, steps]
        rows.append([f"`{name}`", NETWORKS[name], _size(family, options), data, *training])
    headers = ["name", "network", "size", "data", "batch", "epochs", "steps in an epoch"]
    return markdown.table(rows, headers)


def _size(family, options):
    if family.example == "vit":
        width, depth, heads = family.module.SIZES[options.size]
        side = options.patch_size
        return f"{depth} blocks of width {width}, {heads} heads, patches of {side} × {side}"
    if family.example == "cnn":
        return f"ResNet of {options.depth} layers, {options.width} channels in the first"
    return f"{options.depth} hidden layers of width {options.width}, {options.activation}"


def _data(options):
    """What a network is trained on, and the number of steps in an epoch."""
    if hasattr(options, "train_images"):
        side = 28 // options.downscale
        text = f"Fashion-MNIST, {options.train_images:,} images of {side} × {side} pixels"
        return text, math.ceil(options.train_images / options.batch_size)
    if hasattr(options, "points"):
        return f"{options.points:,} points in and around a gyroid", options.steps_per_epoch
    side = options.traced_size
    return f"traced images of {side} × {side} pixels", options.steps_per_epoch


# The networks and the configurations in the words of a reader who has not seen the comparison.
NETWORKS = {
    "deep": "20 Dense layers",
    "deep50": "50 Dense layers",
    "badly_scaled": "20 Dense layers, badly scaled start",
    "fine_tuned": "20 Dense layers, trained on other data before",
    "pruned": "20 Dense layers, nine tenths of the weights removed",
    "cnn": "CNN",
    "vit": "vision transformer",
    "nerf": "radiance field (NeRF)",
    "shape": "occupancy of a solid",
}
# Of gains that are not points of accuracy.
UNITS = {"nerf": ", dB", "shape": ", % IoU"}
OPTIMIZERS = {"sgd": "SGD", "adamw": "AdamW", "muon": "Muon"}
CONFIGURATIONS = {
    families.ORTHOGONAL: "orthogonal start",
    families.STORED: "stored Newton steps",
    families.UPDATES: "orthogonal updates",
    families.STARTED_UPDATES: "orthogonal start and updates",
    families.CENTERED_UPDATES: "weight standardization and orthogonal updates",
    families.NEWTON: "Newton's iteration",
    families.ROWS: "row equilibration",
}
# What a cell says of a configuration that is not the plainest one of its kind.
VARIANTS = {
    families.ORTHOGONAL: "",
    families.TUNED: "scale",
    families.MATCHED: "scale",
    families.ROWS: "",
    families.STORED: "",
    families.CENTERED_STORED: "centered",
    families.NEWTON: "",
    families.UNCENTERED: "uncentered",
    families.POLYNOMIAL: "polynomial",
    families.POLAR_EXPRESS: "Polar Express",
    families.UPDATES: "",
    families.STARTED_UPDATES: "start",
    families.CENTERED_UPDATES: "standardized",
    "weight_normalization": "weight norm",
    families.CENTERING: "standardized",
    "spectral_normalization": "spectral norm",
    families.REGULARIZED: "regularizer",
    **dict.fromkeys(families.AT_START[1:], "by a method"),
}


def network_in_words(family, base):
    """A network and its normalization of activations."""
    normalization = "" if base == families.PLAIN else f", {base} norm"
    return f"{NETWORKS[family]}{normalization}{UNITS.get(family, '')}"


def in_words(candidate):
    """The configuration of a candidate."""
    name = naming.without_base(candidate.name)
    return CONFIGURATIONS.get(name, f"`{name}`")


def choices(chosen):
    """What each kind of conditioning gains in each setting, and what to choose."""
    rows = []
    for choice in chosen:
        form = evidence.FORMS[families.FAMILIES[choice.key[0]].test_score]
        cells = []
        for kind in KINDS:
            candidate = choice.candidates.get(kind)
            cells.append(gain_and_cost(candidate, form[1]) if candidate else "")
        best, unknown = choice.chosen, "-" if choice.better else "nothing"
        name = in_words(best) if best else unknown
        alone = sentences.with_interval(choice.alone, form)
        family, optimizer, base = choice.key
        setting = [network_in_words(family, base), OPTIMIZERS[optimizer]]
        rows.append([*setting, alone, *cells, name])
    headers = ["network", "optimizer", "network alone", *KINDS.values(), "choose"]
    return markdown.table(rows, headers)


def recommendations(chosen):
    """What to use for each network and optimizer, with its gain and its cost."""
    optimizers = list(dict.fromkeys(choice.key[1] for choice in chosen))
    rows = {}
    for choice in chosen:
        family, optimizer, base = choice.key
        name = network_in_words(family, base)
        row = rows.setdefault(name, dict.fromkeys(optimizers, ""))
        row[optimizer] = "nothing"
        best = choice.chosen
        if best:
            unit = evidence.FORMS[families.FAMILIES[family].test_score][1]
            gain, interval = best.comparison.difference, best.comparison.interval
            row[optimizer] = (
                f"{in_words(best)}: {unit * gain:+.1f} ± {unit * interval:.1f}, {best.cost:.1f}×"
            )
        elif choice.better:
            row[optimizer] = "-"
    headers = ["network", *(OPTIMIZERS[each] for each in optimizers)]
    return markdown.table([[name, *row.values()] for name, row in rows.items()], headers)


def gain_and_cost(candidate, unit):
    """The gain over the network alone, bold where significant, and the ratio of step times."""
    gain = f"{unit * candidate.comparison.difference:+.2f}"
    gain = gain if candidate.comparison.outcome == "tie" else f"**{gain}**"
    gain = gain if candidate.cost is None else f"{gain}, {candidate.cost:.1f}×"
    name = naming.without_base(candidate.name).removeprefix("none, ")
    variant = VARIANTS.get(name.rpartition(", ")[2], name)
    return f"{gain} ({variant})" if variant else gain


def crosscheck(agreements):
    """A row for each method in each family, with the scores on all backends."""
    rows = {}
    for each in agreements:
        form = evidence.FORMS[families.FAMILIES[each.family].test_score]
        key = each.family, each.optimizer, f"`{each.normalization}`", form[0]
        row = rows.setdefault(key, {"": sentences.with_interval(each.first, form)})
        p = f"p {each.p:.2g}"
        row[each.backend] = (
            f"{sentences.with_interval(each.second, form)} "
            f"({p if each.p >= significance.LEVEL else f'**{p}**'})"
        )
    backends = list(dict.fromkeys(each.backend for each in agreements))
    cells = [[*key, *(row.get(name, "-") for name in ("", *backends))] for key, row in rows.items()]
    headers = ["family", "optimizer", "normalization", "score", "the comparison", *backends]
    return markdown.table(cells, headers)
