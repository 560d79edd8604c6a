#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible's side of a crash test; the work is in module_utils/kdo_crash.py."""

import base64
import json

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kdo_crash import Host, check, order, verdict


def main():
    module = AnsibleModule(
        argument_spec={
            "phase": {"type": "str", "required": True, "choices": ["check", "crash", "verdict"]},
            "spec_b64": {"type": "str", "required": True, "no_log": True},  # it holds the token of the test
        },
        supports_check_mode=True,
    )
    spec = json.loads(base64.b64decode(module.params["spec_b64"]).decode("utf-8"))
    phase = "check" if module.check_mode else module.params["phase"]
    result = {"check": check, "crash": order, "verdict": verdict}[phase](spec, Host())
    if result["error"]:
        module.fail_json(msg="%(what)s: %(why)s. To do: %(fix)s." % result["error"], **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
