# SPDX-License-Identifier: Apache-2.0
"""Signed policies, with real keys of ssh-keygen."""

import shutil
import subprocess

import pytest

from orchestrator.errors import PolicyError
from orchestrator.knowledge.load import knowledge
from orchestrator.policy.load import load
from orchestrator.policy.signatures import NAMESPACE, Signers

K = knowledge()
pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen (openssh-client)")
TEXT = "apiVersion: kdump-orchestrator/v1\nkind: Policy\nmetadata: {name: t}\nspec:\n  extends: [default]\n"


class Desk:
    def __init__(self, folder):
        self.folder = folder
        self.allowed = folder / "allowed_signers"
        self.allowed.write_text("")

    def key(self, name, *, options="", allow=True):
        path = self.folder / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path], check=True)
        if allow:
            public = (self.folder / f"{name}.pub").read_text().split()[:2]
            with self.allowed.open("a") as file:
                file.write(f"{name}@example.org {options}{' ' if options else ''}{' '.join(public)}\n")
        return path

    def write(self, name, text=TEXT):
        path = self.folder / name
        path.write_text(text)
        return path

    def sign(self, path, key, namespace=NAMESPACE):
        subprocess.run(
            ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", key, path], check=True, capture_output=True
        )

    def load(self, path):
        return load(path, K, Signers(str(self.allowed)))


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def refused(desk, path):
    with pytest.raises(PolicyError) as e:
        desk.load(path)
    problem = e.value.problems[0]
    assert problem.where and problem.fix
    return problem.id


def test_a_signed_policy_counts_and_says_who_signed_it(desk):
    path = desk.write("p.yaml")
    desk.sign(path, desk.key("ann"))
    policy = desk.load(path)
    assert policy.signers == [f"{path}: ann@example.org"]  # the shipped file that it extends needs none
    assert load("default", K, Signers(str(desk.allowed))).signers == []


def test_what_does_not_count(desk):
    ann, eve = desk.key("ann"), desk.key("eve", allow=False)
    path = desk.write("p.yaml")
    assert refused(desk, path) == "P062"
    desk.sign(path, eve)
    assert refused(desk, path) == "P063"
    (desk.folder / "p.yaml.sig").unlink()
    desk.sign(path, ann)
    path.write_text(TEXT.replace("name: t", "name: u"))  # one byte
    assert refused(desk, path) == "P064"
    (desk.folder / "p.yaml.sig").write_text("not a signature\n")
    assert refused(desk, path) == "P063"


def test_a_signature_for_something_else_does_not_count(desk):
    path = desk.write("p.yaml")
    desk.sign(path, desk.key("ann"), namespace="git")
    assert refused(desk, path) in ("P063", "P064")


def test_a_key_that_is_no_longer_valid_does_not_count(desk):
    path = desk.write("p.yaml")
    desk.sign(path, desk.key("old", options='valid-before="20200101"'))
    assert refused(desk, path) in ("P063", "P064")


def test_every_file_that_a_policy_builds_on_needs_its_signature(desk):
    ann = desk.key("ann")
    base = desk.write("base.yaml", TEXT.replace("name: t", "name: base"))
    top = desk.write("top.yaml", TEXT.replace("[default]", "[./base.yaml]"))
    desk.sign(top, ann)
    assert refused(desk, top) == "P062"
    desk.sign(base, desk.key("bob"))
    assert desk.load(top).signers == [f"{base}: bob@example.org", f"{top}: ann@example.org"]


def test_the_list_of_signers_must_be_there(tmp_path):
    with pytest.raises(PolicyError) as e:
        Signers(str(tmp_path / "nobody"))
    assert e.value.problems[0].id == "P060"
