# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""One host's part of a plan file, as the module kdo_apply takes it. Runs on the controller, with the standard library."""

from __future__ import annotations

DOCUMENTATION = r"""
name: kdo_change
short_description: One host's part of a plan made by kdo plan
version_added: "0.1.0"
description:
  - Reads a plan file, checks that nobody has changed it since it was made, and returns what it says of the host that the
    task runs for.
  - The file is read for every host. For thousands of hosts use C(kdo apply), which reads it once.
options:
  _terms:
    description: Path of the plan on the controller, as made by C(kdo plan -o FILE) or C(kdo plan --format json).
      A relative path counts from the directory that ansible-playbook was started in.
    required: true
    type: path
author:
  - kdump-orchestrator contributors (@kdump-orchestrator)
"""

EXAMPLES = r"""
- name: Apply this host's part of a plan
  kdo_apply:
    change_b64: "{{ lookup('kdo_change', 'plan.json').change_b64 }}"
"""

RETURN = r"""
_list:
  description: One dictionary for each path.
  type: list
  elements: dict
  contains:
    status:
      description: V(none), V(changes), V(refused), V(unsupported), V(audit) or V(waived), as in the plan.
      type: str
    said:
      description: Why nothing is changed, or what is left to be done after the change. May be empty.
      type: str
    reboot:
      description: Whether the change counts only after a reboot.
      type: bool
    change_b64:
      description: The change document for the module kdo_apply. Empty where nothing is to be changed.
      type: str
"""

import base64
import hashlib
import json
import os

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

_AGAIN = "make it again: kdo plan -i INVENTORY -o FILE"


def read_plan(path):
    """The plan as plain data. Raises AnsibleError for a file that is none, or that was changed by hand."""
    try:
        with open(path, encoding="utf-8") as stream:
            plan = json.load(stream)
    except OSError as error:
        raise AnsibleError("the plan %s cannot be read: %s. To do: %s." % (path, error.strerror, _AGAIN)) from None
    except (ValueError, RecursionError):
        raise AnsibleError("%s is not a plan: it is not JSON. To do: %s." % (path, _AGAIN)) from None
    if not isinstance(plan, dict) or plan.get("kind") != "Plan" or not isinstance(plan.get("hosts"), list):
        why = "it has no kind Plan and no hosts (kdo plan --format jsonl gives hosts without the plan around them)"
        raise AnsibleError("%s is not a plan: %s. To do: %s." % (path, why, _AGAIN))
    if str(plan.get("format_version", "")).split(".")[0] != "1":
        why = "its format is %s, and this version reads 1.0" % plan.get("format_version")
        raise AnsibleError("%s cannot be read: %s. To do: %s." % (path, why, _AGAIN))
    plan.pop("problems", None)  # `kdo plan --format json` adds what could not be asked
    text = json.dumps(dict(plan, hash=""), ensure_ascii=False, separators=(",", ":"))
    if hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() != plan.get("hash"):
        why = "its hash does not fit its content"
        raise AnsibleError("%s was changed after it was made: %s. To do: %s." % (path, why, _AGAIN))
    return plan


def part(plan, host):
    """What the plan says of one host. Raises AnsibleError where it says nothing."""
    found = [entry for entry in plan["hosts"] if entry["host"] == host]
    if not found:
        some = ", ".join(entry["host"] for entry in plan["hosts"][:5]) or "none"
        fix = "leave it out with --limit, or make a plan with this host"
        raise AnsibleError("the plan says nothing of the host %s; its hosts: %s. To do: %s." % (host, some, fix))
    entry = found[0]
    status, steps, said = entry["status"], entry["changes"], []
    if status in ("refused", "unsupported"):
        said = ["%s: %s; to do: %s" % (r["what"], r["why"], r["fix"]) for r in entry["refusals"]] or [status]
    elif status in ("audit", "waived"):
        said = ["nothing is changed here: the policy only looks (%s)" % status]
    elif status == "changes" and entry["reboot"]:
        said = ["a reboot is needed: %s" % entry["reboot_why"]]
        if entry["reboot_allowed"] != "always":
            said.append("the policy allows it: %s %s" % (entry["reboot_allowed"], ", ".join(entry["reboot_windows"])))
    change = {
        "format_version": plan["format_version"],
        "id": plan["hash"],
        "title": "%s for %s" % (entry["strategy"], entry["host"]),
        "steps": [row["step"] for row in steps],
        "expect": entry["boot_expect"] + entry["expect"],
        "family": entry["family"],
    }
    document = json.dumps(change, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    wanted = status == "changes" and bool(steps)
    return {
        "status": status,
        "said": "; ".join(said).strip(),
        "reboot": status == "changes" and bool(entry["reboot"]),
        "change_b64": base64.b64encode(document).decode("ascii") if wanted else "",
    }


class LookupModule(LookupBase):
    """``lookup('kdo_change', PLAN)``."""

    def run(self, terms, variables=None, **kwargs):
        """One part for each plan named."""
        self.set_options(var_options=variables, direct=kwargs)
        host = str((variables or {})["inventory_hostname"])
        paths = [os.path.abspath(os.path.expanduser(str(term))) for term in terms]
        return [part(read_plan(path), host) for path in paths]
