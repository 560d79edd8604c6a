# SPDX-License-Identifier: Apache-2.0
"""A repository of somebody who keeps a policy, its cases and facts of a fleet in git."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import msgspec

from orchestrator.documents.base import encode
from tests.builders import debian

ROOT = Path(__file__).parents[2]

POLICY = """apiVersion: kdump-orchestrator/v1
kind: Policy
metadata: {name: fleet}
spec:
  extends: [default]
  overrides:
    - id: room
      why: the usual 128 MiB run out of memory with our initramfs
      match: {memory: {min: 2G}}
      settings: {reservation: {minimum: 256M}}
"""
CASES = """apiVersion: kdump-orchestrator/v1
kind: PolicyTest
spec:
  policy: ../fleet.yaml
  cases:
    - name: a large host gets more memory
      host: {arch: x86_64, hypervisor: kvm, distribution: debian, distribution_version: "12", memory: 64G}
      expect: {overrides: [room], settings: {reserved: 256M}}
"""


def git(folder: Path, *words: str) -> str:
    """git with an identity of its own, and nothing of the user's configuration."""
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main", *words]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commit(folder: Path, message: str) -> str:
    """Commit everything and return the commit."""
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", message)
    return git(folder, "rev-parse", "HEAD")


def repository(folder: Path) -> str:
    """Make it; returns its first commit."""
    (folder / "policies/tests").mkdir(parents=True)
    (folder / "facts").mkdir()
    (folder / "policies/fleet.yaml").write_text(POLICY)
    (folder / "policies/tests/fleet.yaml").write_text(CASES)
    hosts = [msgspec.structs.replace(debian(), host=name) for name in ("web1", "web2", "db1")]
    (folder / "facts/fleet.jsonl").write_bytes(b"".join(encode(h) + b"\n" for h in hosts))
    git(folder, "init", "-q")
    return commit(folder, "policy: as it is")
