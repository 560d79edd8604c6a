# SPDX-License-Identifier: Apache-2.0
"""Doing one step. Each returns (result, output); what goes wrong is an exception, and everything is undone."""

try:
    from ansible.module_utils import kdo_txn_kit as kit
    from ansible.module_utils.kdo_txn_action import StepError
    from ansible.module_utils.kdo_txn_expect import same_value
    from ansible.module_utils.kdo_txn_files import edited
    from ansible.module_utils.kdo_txn_fs import sha256
except ImportError:
    import kdo_txn_kit as kit
    from kdo_txn_action import StepError
    from kdo_txn_expect import same_value
    from kdo_txn_files import edited
    from kdo_txn_fs import sha256


class Doer(object):
    def __init__(self, tree, shop, tx):
        self.tree, self.shop, self.tx = tree, shop, tx
        self.family = kit.family_of(tx.change)

    def do(self, index, step):
        return getattr(self, "_" + step["op"].replace("-", "_"))(index, step)

    def _write(self, _index, step):
        data, mode = step["text"].encode("utf-8"), int(step.get("mode", "0644"), 8)
        info = self.tree.stat(step["path"])
        if info is not None and info.st_mode & 0o7777 == mode and self.tree.read(step["path"]) == data:
            return "unchanged", ""
        self.tree.write(step["path"], data, mode)
        return "changed", ""

    def _assign(self, _index, step):
        now = self.tree.read(step["path"])
        if now is None:
            raise StepError("%s is not there, though its package is installed" % step["path"])
        after = edited(now, step)
        if step.get("after_sha256") not in (None, sha256(after)):
            raise StepError("%s would not become what was planned" % step["path"])
        if after == now:
            return "unchanged", ""
        self.tree.write(step["path"], after)
        return "changed", ""

    _settings = _arguments = _assign

    def _remove(self, _index, step):
        if self.tree.stat(step["path"]) is None:
            return "unchanged", ""
        self.tree.remove(step["path"])
        return "changed", ""

    def _knob(self, _index, step):
        if same_value(step["path"], self.tree.value(step["path"]), step["value"]):
            return "unchanged", ""
        self.tree.set_value(step["path"], step["value"])
        if not same_value(step["path"], self.tree.value(step["path"]), step["value"]):
            raise StepError("the kernel did not take the value for %s" % step["path"])
        return "changed", ""

    def _service_enable(self, _index, step):
        if self.shop.unit_state(step["unit"]) == "enabled":
            return "unchanged", ""
        output = self.shop.must("unit-enable", step["unit"])
        state = self.shop.unit_state(step["unit"])
        if state not in ("enabled", "enabled-runtime", "alias", "static", "generated"):
            raise StepError("%s is still not enabled" % step["unit"], output)
        return "changed", output

    def _service_disable(self, _index, step):
        if self.shop.unit_state(step["unit"]) == "disabled":
            return "unchanged", ""
        output = self.shop.must("unit-disable", step["unit"])
        state = self.shop.unit_state(step["unit"])
        if state not in ("disabled", "masked", "not-found"):
            raise StepError("%s is still %s" % (step["unit"], state), output)
        return "changed", output

    def _service_mask(self, _index, step):
        return self._masked(step["unit"], "unit-mask", True)

    def _service_unmask(self, _index, step):
        return self._masked(step["unit"], "unit-unmask", False)

    def _masked(self, unit, command, wanted):
        if (self.shop.unit_state(unit) == "masked") == wanted:
            return "unchanged", ""
        output = self.shop.must(command, unit)
        state = self.shop.unit_state(unit)
        if (state == "masked") != wanted:
            raise StepError("%s is still %s" % (unit, state), output)
        return "changed", output

    def _package_install(self, index, step):
        before = self.family.installed(self.tree, self.shop)
        missing = [name for name in step["names"] if before.get(name) != "installed"]
        if not missing:
            return "unchanged", ""
        output = self.family.install(self, index, missing)
        after = self.family.installed(self.tree, self.shop)
        for name in missing:
            if after.get(name) != "installed":
                raise StepError("%s is not installed, though its manager says so" % name, output)
        return "changed", output

    def _action(self, _index, step):
        return kit.ACTIONS[step["name"]].do(self, self.family, step)
