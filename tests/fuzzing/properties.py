"""Whether a configuration has all properties, is refused, or fails."""

import dataclasses
import re
import traceback

import keras

from tests.fuzzing.configurations import QUANTIZATIONS
from tests.fuzzing.operations import OPERATIONS
from tests.fuzzing.refusals import is_documented
from tests.fuzzing.subject import PropertyError, Subject, quietly


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a configuration.

    Args:
        kind: `"passed"`, `"refused"` as documented, `"refused by Keras"` or `"failed"`.
        reason: The error, or an empty string.
        signature: What failures of one cause have in common.
    """

    kind: str
    reason: str = ""
    signature: str = ""


def outcome(configuration):
    """Runs a configuration, and its plain layer where it fails."""
    done, error = quietly(run, configuration)
    if error is None:
        return Outcome("passed")
    at = configuration.operations[done - 1] if done else "making the model"
    reason = f"{at}: {type(error).__name__}: {error}"
    if is_documented(configuration, error):
        return Outcome("refused", reason)
    if not isinstance(error, PropertyError) and quietly(run, configuration, True)[0] == done:
        return Outcome("refused by Keras", reason)
    return Outcome("failed", reason, f"{at}: {_signature(error)}")


def run(configuration, is_plain=False):
    """Runs the operations of a configuration, and checks the outputs after each of them.

    Returns:
        The number of operations up to an error, and the error or None. Zero operations stand for
        making the model, and -1 for no error.
    """
    keras.utils.set_random_seed(0)
    done = 0
    try:
        subject = Subject(configuration, is_plain)
        subject.check()
        for name in configuration.operations:
            done += 1
            OPERATIONS[name](subject)
            if name not in QUANTIZATIONS:
                subject.check()
    except Exception as error:
        return done, error
    return -1, None


def _signature(error):
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame.name
        for frame in frames
        if "keras_wcond" in frame.filename or "fuzzing" in frame.filename
    ]
    words = re.sub(r"\d[\d.e+-]*", "#", str(error))[:60]
    return f"{type(error).__name__} in {own[-1] if own else '?'}: {words}"
