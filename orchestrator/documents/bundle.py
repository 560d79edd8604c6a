# SPDX-License-Identifier: Apache-2.0
"""Bundle: everything that a host needs to judge itself, in one file that is signed as a whole."""

from __future__ import annotations

from orchestrator.documents.base import FORMAT_VERSION, Document


class Bundle(Document, frozen=True, kw_only=True):
    """Policy, waivers, and what they are meant for. The same input gives the same bytes: there is no time in it.

    ``files``: name in the bundle → text, names relative and with ``/``; shipped policies that the policy builds on come
    with the tool and are not in it. ``policy`` names the policy: one of ``files``, or a shipped one.
    """

    format_version: str = FORMAT_VERSION
    kind: str = "Bundle"
    serial: int  # counts up: a host never goes back to a smaller one
    expires: str = ""  # the last day on which it counts, UTC, YYYY-MM-DD; "" = no end
    tool: str = ""  # version of kdump-orchestrator that it was made with
    any_tool: bool = False  # other knowledge than that version's may judge by it
    policy: str
    policy_name: str = ""
    policy_hash: str = ""  # of policy and knowledge together, as in a plan
    waivers: list[str] = []
    files: dict[str, str] = {}
