#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible's side of applying a plan; the work is in module_utils/kdo_txn.py."""

import base64
import binascii
import json

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils import kdo_diff
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
    pictures = kdo_diff.of_change(change) if module._diff else None
    result = run(change, check=module.check_mode)
    if module._diff:
        result["diff"] = kdo_diff.apply_rows(pictures, change, result, module.check_mode)
    if result["error"]:
        module.fail_json(msg="%(what)s: %(why)s. To do: %(fix)s." % result["error"], **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
