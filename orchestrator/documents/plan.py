# SPDX-License-Identifier: Apache-2.0
"""DesiredState and Plan: what a host should look like in its distribution's words, and the difference to what it is."""

from __future__ import annotations

from typing import Any

from orchestrator.documents.base import FORMAT_VERSION, Document
from orchestrator.documents.decision import Layer, Refusal


class DesiredFile(Document, frozen=True, kw_only=True):
    """A file as it should be: its whole text, or what is to be edited in a file that somebody else owns."""

    path: str
    text: str | None = None
    assignments: list[tuple[str, str]] = []  # shell variables
    settings: list[tuple[str, str | None]] = []  # lines of "key value"; None = not there
    ensure: list[str] = []  # kernel arguments, each exactly once under its key
    remove: list[str] = []  # keys of kernel arguments that must not be there
    mode: str = "0644"
    image: bool = False  # the capture image is made from it, so a change of it makes the image anew
    load: bool = False  # it is read when the capture kernel is loaded, and nothing records what was read
    package: str = ""  # package that brings the file when it is not there yet
    why: str = ""


class DesiredState(Document, frozen=True, kw_only=True):
    """What the family module makes of a decision. ``supported=False``: nothing may be planned, and why."""

    supported: bool
    enabled: bool = True  # False: no kdump is wanted
    why_not: str = ""
    packages: list[str] = []
    files: list[DesiredFile] = []
    boot_ensure: list[str] = []  # arguments that the next boot must have, each exactly once
    boot_remove: list[str] = []  # keys that the next boot must not have
    boot_owned: list[str] = []  # keys that are ours: taken off wherever else they stand
    capture_arguments: list[str] = []  # the whole list to append to the capture kernel's command line
    service: str = ""
    presets: bool = True  # a package that is installed enables its own service
    knobs: dict[str, str] = {}  # absolute path → value, now
    login: dict[
        str, str
    ] = {}  # server, key, host_key: what is missing for a login at the dump server ("" = that is not)
    notes: list[str] = []


class Change(Document, frozen=True, kw_only=True):
    """One step. ``step`` is what the host side runs; the rest is for people."""

    kind: str  # package | login | file | boot | image | service | reload | knob
    what: str
    why: str
    diff: str = ""
    step: dict[str, Any] = {}
    default: bool = False  # it makes boot arguments the default of every boot


class StateRow(Document, frozen=True, kw_only=True):
    """One setting in the four places where it can differ."""

    what: str
    wanted: str
    next_boot: str
    running: str
    loaded: str


class HostPlan(Document, frozen=True, kw_only=True):
    """The plan for one host. ``status``: none | changes | refused | unsupported | audit | waived."""

    host: str
    fingerprint: str
    status: str
    platform: str  # one line: "aarch64 hyperv guest (azure)"
    rule: str
    overrides: list[str] = []
    strategy: str
    layers: list[Layer] = []
    action: str = "none"  # the smallest that suffices: none | knob | reload | rebuild | reboot
    changes: list[Change] = []
    expect: list[dict[str, Any]] = []
    boot_expect: list[dict[str, Any]] = []  # what holds of the boot configuration once the arguments are the default
    family: str = ""  # whose tools the host side drives
    trial: dict[str, Any] = {}  # the step that tries the new boot arguments for one boot; empty = nothing to try
    reboot: bool = False
    reboot_why: str = ""
    reboot_allowed: str = "always"  # always | window | never
    reboot_windows: list[str] = []  # UTC, as in the policy
    rows: list[StateRow] = []
    refusals: list[Refusal] = []
    notes: list[str] = []


class Rollout(Document, frozen=True, kw_only=True):
    """How a plan goes through many hosts. Shares are a number of hosts or a percentage of those that change."""

    waves: list[str] = []  # each up to that many hosts in all; empty = one wave
    canary: list[str] = []  # hosts of the first wave: names with wildcards, group:NAME, tag:TAG; empty = by size
    by: str = ""  # a label (a tag LABEL=VALUE): after the canary no wave spans two values of it
    max_fail: str = "0"
    max_unreachable: str = "100%"
    max_hosts: int | None = None
    budget: str = ""  # hosts that enforcement may change in 24 hours, of all that it looks at; empty = no limit
    reboots: int | None = None  # hosts that reboot at the same time
    soak: int = 0  # seconds between a wave and the next one
    pause: str = "never"  # never | canary | waves: where a run waits for somebody
    windows: list[str] = []  # UTC; outside of them no wave begins; empty = any time


class Plan(Document, frozen=True, kw_only=True):
    """A whole plan file. ``hash`` covers everything else in it, so that a plan changed by hand is refused."""

    format_version: str = FORMAT_VERSION
    kind: str = "Plan"
    tool: str = ""
    policy: str = ""
    policy_hash: str = ""
    signers: list[str] = []  # "file: signer" of every policy file whose signature was asked for
    rollout: Rollout = Rollout()
    changes: int = 0  # number of steps in all, so that a plan that changes nothing says so in its header
    hosts: list[HostPlan] = []
    hash: str = ""
