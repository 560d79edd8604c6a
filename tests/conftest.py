# SPDX-License-Identifier: Apache-2.0
"""What all tests share."""

from hypothesis import settings

# An example that takes long on a busy machine says nothing about the code: no test is a timed one.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
