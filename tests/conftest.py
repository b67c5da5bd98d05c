"""What holds for all tests."""

import os

from hypothesis import settings

# A busy machine makes any example slow now and then: that is no fact about the code. In CI the same examples
# are drawn each time, so that what fails there fails again at home.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "here")
