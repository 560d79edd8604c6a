# SPDX-License-Identifier: Apache-2.0
"""What all tests share."""

import atexit
import os
import shutil
import tempfile

from hypothesis import settings

# An example that takes long on a busy machine says nothing about the code: no test is a timed one.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Proofs that were kept on this machine are none of the tests' business.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="kdo-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)
