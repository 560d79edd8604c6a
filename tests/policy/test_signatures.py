# SPDX-License-Identifier: Apache-2.0
"""Signed policies, with real keys of ssh-keygen."""

import os
import shutil
import subprocess

import pytest

from orchestrator.checks.base import all_checks
from orchestrator.checks.run import verdict  # noqa: F401  (registers the checks)
from orchestrator.cli.common import PolicyChoice
from orchestrator.errors import PolicyError
from orchestrator.knowledge.load import knowledge
from orchestrator.policy import compose, signatures
from orchestrator.policy.compose import shipped
from orchestrator.policy.load import load
from orchestrator.policy.signatures import NAMESPACE, Signers
from orchestrator.policy.waivers import load as load_waivers
from orchestrator.resources import data_path

K = knowledge()
pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen (openssh-client)")
TEXT = "apiVersion: kdump-orchestrator/v1\nkind: Policy\nmetadata: {name: t}\nspec:\n  extends: [default]\n"
BEGIN, END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"


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


def refused(desk, path, *words):
    with pytest.raises(PolicyError) as e:
        desk.load(path)
    (problem,) = e.value.problems
    assert problem.where == str(path) and problem.why and problem.fix
    text = " ".join(problem.lines())
    for word in words:
        assert word in text, text
    return problem.id


def test_a_signed_policy_counts_and_says_who_signed_it(desk):
    path = desk.write("p.yaml")
    desk.sign(path, desk.key("ann"))
    policy = desk.load(path)
    assert policy.signers == [f"{path}: ann@example.org"]  # the shipped file that it extends needs none


def test_shipped_files_need_no_signature(desk):
    for name in shipped():
        policy = load(name, K, Signers(str(desk.allowed)))
        assert policy.signers == []


def test_unsigned(desk):
    assert refused(desk, desk.write("p.yaml"), "not signed", "p.yaml.sig", "ssh-keygen -Y sign -n") == "P062"


def test_signed_by_a_key_that_is_not_allowed(desk):
    desk.key("ann")
    path = desk.write("p.yaml")
    desk.sign(path, desk.key("eve", allow=False))
    assert refused(desk, path, "nobody whose signature counts", "No principal matched") == "P063"


def test_changed_by_one_byte_after_it_was_signed(desk):
    path = desk.write("p.yaml")
    desk.sign(path, desk.key("ann"))
    for changed in (TEXT.replace("name: t", "name: u"), TEXT + "\n", TEXT[:-1]):
        path.write_text(changed)
        assert refused(desk, path, "changed after it was signed", "ann@example.org") == "P064"
    path.write_text(TEXT)
    assert desk.load(path).signers


def test_a_file_beside_it_that_is_no_signature(desk):
    desk.key("ann")
    path = desk.write("p.yaml")
    for junk in ("not a signature\n", "", f"{BEGIN}\n!!\n{END}\n", f"{BEGIN}\nU1NIU0lH\n{END}\n"):
        (desk.folder / "p.yaml.sig").write_text(junk)
        assert refused(desk, path) == "P066"


def test_a_signature_for_something_else_does_not_count(desk):
    path = desk.write("p.yaml")
    desk.sign(path, desk.key("ann"), namespace="git")
    assert refused(desk, path, "'git'", "-n kdump-orchestrator") == "P065"


def test_a_key_that_may_only_sign_something_else_does_not_count(desk):
    path = desk.write("p.yaml")
    desk.sign(path, desk.key("ann", options='namespaces="git"'))
    assert refused(desk, path, "nobody whose signature counts", "namespace") == "P063"


@pytest.mark.parametrize(
    ("options", "word"), [('valid-before="20200101"', "expired"), ('valid-after="20990101"', "not yet valid")]
)
def test_a_key_counts_only_in_its_time(desk, options, word):
    path = desk.write("p.yaml")
    desk.sign(path, desk.key("old", options=options))
    assert refused(desk, path, word) == "P063"


def test_a_key_that_is_rotated(desk):
    path = desk.write("p.yaml")
    desk.sign(path, desk.key("old", options='valid-before="20200101"'))
    (desk.folder / "p.yaml.sig").unlink()
    desk.sign(path, desk.key("new", options='valid-after="20200101"'))
    assert desk.load(path).signers == [f"{path}: new@example.org"]


def test_one_key_under_several_names(desk):
    path = desk.write("p.yaml")
    desk.sign(path, desk.key("ann", allow=False))
    public = (desk.folder / "ann.pub").read_text().split()[:2]
    desk.allowed.write_text(f"ann@example.org,team@example.org {' '.join(public)}\n")
    assert desk.load(path).signers == [f"{path}: ann@example.org"]


def test_odd_names_of_files_are_only_names(desk):
    path = desk.write("-n $(id) ;x.yaml")
    key = desk.key("ann")
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", key, f"./{path.name}"],
        check=True, capture_output=True, cwd=desk.folder)  # fmt: skip
    assert desk.load(path).signers == [f"{path}: ann@example.org"]


def test_every_file_that_a_policy_builds_on_needs_its_signature(desk):
    ann = desk.key("ann")
    base = desk.write("base.yaml", TEXT.replace("name: t", "name: base"))
    top = desk.write("top.yaml", TEXT.replace("[default]", "[./base.yaml]"))
    desk.sign(top, ann)
    with pytest.raises(PolicyError) as e:
        desk.load(top)
    assert [(p.id, p.where) for p in e.value.problems] == [("P062", str(base))]
    desk.sign(base, desk.key("bob"))
    assert desk.load(top).signers == [f"{base}: bob@example.org", f"{top}: ann@example.org"]


@pytest.mark.parametrize("name", ["nobody", ".", "a\0b"])
def test_the_list_of_signers_must_be_there(tmp_path, name):
    with pytest.raises(PolicyError) as e:
        Signers(str(tmp_path / name))
    (problem,) = e.value.problems
    assert problem.id == "P060" and problem.where and problem.why and problem.fix


def test_an_empty_list_allows_nobody(desk):
    path = desk.write("p.yaml")
    desk.sign(path, desk.key("ann", allow=False))
    assert refused(desk, path) == "P063"


def test_without_ssh_keygen_nothing_is_believed(desk, monkeypatch):
    monkeypatch.setenv("PATH", str(desk.folder))
    with pytest.raises(PolicyError) as e:
        Signers(str(desk.allowed))
    (problem,) = e.value.problems
    assert problem.id == "P061" and "openssh-client" in problem.fix


def test_an_ssh_keygen_that_hangs_does_not_hang_us(desk, monkeypatch):
    path = desk.write("p.yaml")
    desk.sign(path, desk.key("ann"))
    fake = desk.write("ssh-keygen", "#!/bin/sh\nexec sleep 30\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{desk.folder}:{os.environ['PATH']}")
    monkeypatch.setattr(signatures, "_TIMEOUT", 0.2)
    with pytest.raises(PolicyError) as e:
        desk.load(path)
    assert e.value.problems[0].id == "P061"


def test_what_is_parsed_is_what_was_verified(desk):
    """The file is read once: what stands in it while ssh-keygen looks does not matter."""
    path = desk.write("p.yaml")
    desk.sign(path, desk.key("ann"))
    signers = Signers(str(desk.allowed))

    def verify(file, data):
        path.write_text(TEXT.replace("name: t", "name: evil"))
        return signers(file, data)

    assert load(path, K, verify).name == "t"


def test_every_verb_asks_for_the_signatures_of_all_files(desk, monkeypatch):
    path = desk.write("p.yaml", TEXT.replace("extends: [default]", "default: {refuse: nothing here}"))
    monkeypatch.setattr(compose, "data_root", lambda: desk.folder)  # as if the policy lay in a checkout of the tool
    assert PolicyChoice(str(path)).pipeline().policy.name == "t"
    with pytest.raises(PolicyError) as e:
        PolicyChoice(str(path), (), str(desk.allowed)).pipeline()
    assert [p.id for p in e.value.problems] == ["P062"]


def test_a_waiver_file_needs_its_signature_too(desk):
    path = desk.write("w.yaml", data_path("policies/examples/waivers.yaml").read_text())
    signers = Signers(str(desk.allowed))

    def read(file):
        return load_waivers(str(file), K, all_checks(), None, signers)

    for file in (path, data_path("policies/examples/waivers.yaml")):  # an example is nobody's approval
        with pytest.raises(PolicyError) as e:
            read(file)
        assert e.value.problems[0].id == "P062"
    desk.sign(path, desk.key("ann"))
    assert {w.file.signer for w in read(path)} == {"ann@example.org"}
