"""How long a training step takes, as `step_times` measured it."""

import dataclasses
import json
import statistics

from benchmarks.comparison import families, naming


@dataclasses.dataclass(frozen=True)
class Times:
    """How long a step of each normalization takes.

    Args:
        seconds: Of a step, by normalization: a median.
        steps: Of an epoch.
    """

    seconds: dict[str, float]
    steps: int

    @classmethod
    def of(cls, measured):
        """Of what `step_times` wrote for a family and optimizer, or None."""
        measured = measured or {"seconds": {}, "steps": 0}
        seconds = {name: statistics.median(own) for name, own in measured["seconds"].items()}
        return cls(seconds, measured["steps"])

    def of_step(self, name):
        """Seconds, or None where they were not measured."""
        # What differs from another network only at the start takes the same time.
        return self.seconds.get(naming.base_of(name) if naming.is_start(name) else name)

    def ratio(self, name, other):
        """The time of a step over that of another one, or None where one was not measured."""
        own, reference = self.of_step(name), self.of_step(other)
        return own / reference if own and reference else None


def read(folder):
    """The `Times` of all families and optimizers: empty where they were not measured."""
    path = folder / "step-times.json"
    measured = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    # Where training starts changes nothing about a step.
    timed = {name: "deep" if name in families.STARTS else name for name in families.FAMILIES}
    return {
        (name, optimizer): Times.of(measured.get(timed[name], {}).get(optimizer))
        for name in families.FAMILIES
        for optimizer in families.OPTIMIZERS
    }
