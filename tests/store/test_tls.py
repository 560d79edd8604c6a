# SPDX-License-Identifier: Apache-2.0
"""A team's store: PostgreSQL that takes nobody without TLS and a password, neither of which is ever in a URL."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from orchestrator.store import audit
from orchestrator.store.database import StoreError
from orchestrator.store.store import Store
from tests.postgres import server

PASSWORD = "a-password-of-a-test"


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    with server(tmp_path_factory.mktemp("tls"), PASSWORD) as found:
        yield found


def test_a_store_over_tls_with_a_password_from_pgpass(tls, tmp_path, monkeypatch):
    url = f"{tls.database('team')}?sslmode=verify-full&sslrootcert={tls.certificate}"
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
    with pytest.raises(StoreError) as refused:
        Store(url)
    assert "password" in refused.value.problems[0].why
    (tmp_path / "pgpass").write_text(f"127.0.0.1:{tls.port}:team:postgres:{PASSWORD}\n")
    (tmp_path / "pgpass").chmod(0o600)
    monkeypatch.setenv("KDO_STORE", url)
    swept = subprocess.run(
        [sys.executable, "-m", "orchestrator", "sweep", "--format", "json"], capture_output=True, text=True
    )
    assert json.loads(swept.stdout)["state"] == "done", swept.stderr
    with Store(url) as store:
        assert audit.verify(store.database).broken is None
        kept = json.dumps(
            store.database.read("SELECT settings FROM run") + store.database.read("SELECT detail FROM audit")
        )
    assert PASSWORD not in kept + swept.stdout + swept.stderr


@pytest.mark.parametrize(
    "how", ["sslmode=disable", "sslmode=verify-full&sslrootcert=/etc/ssl/certs/ca-certificates.crt"]
)
def test_nothing_is_said_to_a_server_that_is_not_the_one(tls, tmp_path, monkeypatch, how):
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with pytest.raises(StoreError, match="store cannot be used"):
        Store(f"{tls.url}?{how}")
