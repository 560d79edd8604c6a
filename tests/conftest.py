# SPDX-License-Identifier: Apache-2.0
"""What all tests share."""

import atexit
import itertools
import os
import shutil
import tempfile

import pytest
from hypothesis import settings

# An example that takes long on a busy machine says nothing about the code: no test is a timed one.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Proofs that were kept on this machine, and its fleet, are none of the tests' business.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="kdo-tests-")
os.environ.pop("KDO_STORE", None)
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)

_NUMBER = itertools.count(1)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """A PostgreSQL server of the session's own."""
    from tests.postgres import server

    with server(tmp_path_factory.mktemp("postgres")) as found:
        yield found


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request, tmp_path):
    """An empty store of each kind."""
    if request.param == "sqlite":
        return str(tmp_path / "state" / "store.db")
    return request.getfixturevalue("postgres").database(f"t{os.getpid()}_{next(_NUMBER)}")
