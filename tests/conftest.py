import os

import hypothesis

hypothesis.settings.register_profile("local", deadline=None, max_examples=200)
hypothesis.settings.register_profile(
    "ci", parent=hypothesis.settings.get_profile("local"), derandomize=True
)
hypothesis.settings.load_profile("ci" if "CI" in os.environ else "local")
