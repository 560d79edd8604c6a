#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible's side of applying a plan; the work is in module_utils/kdo_txn.py."""

DOCUMENTATION = r"""
---
module: kdo_apply
short_description: Apply one host's part of a kdump plan as a transaction
description:
  - Applies a change document made by C(kdo plan) - all of it, or none of it.
  - Everything the change can reach is recorded first. A failed step, a failed expectation or a signal puts all of it
    back, and so does the next boot after a power loss.
  - A host that is no longer what the plan was made for is refused, and nothing is touched.
options:
  change_b64:
    description: The change document, JSON in base64.
    type: str
    required: true
attributes:
  check_mode:
    description: Says what would be done, and writes nothing at all.
    support: full
  diff_mode:
    description: Names files and variables, never their content.
    support: partial
author:
  - kdump-orchestrator contributors (@kdump-orchestrator)
"""

EXAMPLES = r"""
- name: Apply the plan
  kdo_apply:
    change_b64: "{{ kdo_change | to_json | b64encode }}"
  register: kdo_outcome
"""

RETURN = r"""
state:
  description: How it ended - C(committed), C(undone), C(undo-incomplete), C(refused) or C(check).
  returned: always
  type: str
transaction:
  description: Name of the transaction in the host's state directory.
  returned: when one was opened
  type: str
steps:
  description: Each step with its result, duration and the cleaned output of its commands.
  returned: always
  type: list
  elements: dict
recovered:
  description: Earlier transactions found unfinished, and what became of them.
  returned: always
  type: list
  elements: dict
after:
  description: SHA-256 of each configuration file that changed.
  returned: always
  type: dict
error:
  description: What went wrong, why, and what to do.
  returned: always
  type: dict
"""

import base64
import binascii
import json

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kdo_txn import run


def main():
    module = AnsibleModule(
        # It holds no secret, but it would only be noise in an invocation.
        argument_spec={"change_b64": {"type": "str", "required": True, "no_log": True}},
        supports_check_mode=True,
    )
    try:
        change = json.loads(base64.b64decode(module.params["change_b64"], validate=True).decode("utf-8"))
    except (binascii.Error, ValueError, RecursionError):
        why = "it is not JSON in base64"
        error = {"what": "the change document is not valid", "why": why, "fix": "make the plan with kdo plan"}
        module.fail_json(
            msg="the change document is not valid: " + why,
            state="refused",
            error=error,
            steps=[],
            recovered=[],
            after={},
        )
    result = run(change, check=module.check_mode)
    if result["steps"] and (module.check_mode or module._diff):
        rows = ["%-12s %s" % (row["result"], row["what"]) for row in result["steps"]]
        result["diff"] = {"prepared": "\n".join(rows) + "\n"}
    if result["error"]:
        module.fail_json(msg="%(what)s: %(why)s. To do: %(fix)s." % result["error"], **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
