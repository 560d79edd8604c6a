# SPDX-License-Identifier: Apache-2.0
"""What tests on real guests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

LONG = (
    "test_debian_12_from_unconfigured",
    "test_debian_12_without_kdump_tools",
    "test_a_good_trial",
    "test_systemd_boot_starts",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: two guests run side by side, and the last one should not be left to run alone."""
    items.sort(key=lambda item: not item.name.startswith(LONG))


@pytest.fixture
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """The directory of one test's guest, plans and dumps; below ``KDO_LAB_ARTIFACTS``, if set, where it stays."""
    keep = os.environ.get("KDO_LAB_ARTIFACTS")
    path = Path(keep) / request.node.name if keep else tmp_path
    path.mkdir(parents=True, exist_ok=True)
    yield path
