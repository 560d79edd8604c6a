# SPDX-License-Identifier: Apache-2.0
"""Doing one step. Each returns (result, output); what goes wrong is an exception, and everything is undone."""

import re

try:
    from ansible.module_utils import kdo_txn_doc as doc
    from ansible.module_utils import kdo_txn_scope as scope
    from ansible.module_utils import kdo_txn_trial as trial
    from ansible.module_utils.kdo_txn_expect import same_value
    from ansible.module_utils.kdo_txn_fs import sha256
    from ansible.module_utils.kdo_txn_look import edited
except ImportError:
    import kdo_txn_doc as doc
    import kdo_txn_scope as scope
    import kdo_txn_trial as trial
    from kdo_txn_expect import same_value
    from kdo_txn_fs import sha256
    from kdo_txn_look import edited

# kdump-config test ends with 0 whatever it finds; these are the findings that make a load fail.
_TEST_FAILURES = ("USE_KDUMP is not set or zero", "kdump is not supported by this kernel", "no crashkernel= parameter")


class StepError(Exception):
    """A step did not do what it was meant to. ``output`` is what a command said."""

    def __init__(self, why, output=""):
        Exception.__init__(self, why)
        self.why, self.output = why, output


class Doer(object):
    def __init__(self, tree, shop, tx):
        self.tree, self.shop, self.tx = tree, shop, tx

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

    def _package_install(self, index, step):
        before = scope.packages(self.tree)
        missing = [name for name in step["names"] if before.get(name) != "installed"]
        if not missing:
            return "unchanged", ""
        policy = self.shop.run("apt-policy", *missing)[2]
        if len(re.findall(r"^\s*Candidate:\s*(?!\(none\))\S+", policy, re.M)) < len(missing):
            self.shop.must("apt-update")
        plan = self.shop.run("apt-simulate", *missing)
        if plan[0] != 0:
            raise StepError("the packages cannot be installed", plan[1])
        coming = sorted(set(re.findall(r"^Inst (\S+)", plan[2], re.M)))
        leaving = sorted(set(re.findall(r"^(?:Remv|Purg) (\S+)", plan[2], re.M)))
        if leaving:
            raise StepError("installing would remove %s" % ", ".join(leaving))
        # Written down first: after a kill it says which of the packages that are new are ours to remove.
        self.tx.append("packages", index=index, names=sorted({name.split(":")[0] for name in coming + missing}))
        output = self.shop.must("apt-install", *missing)
        after = scope.packages(self.tree)
        for name in missing:
            if after.get(name) != "installed":
                raise StepError("%s is not installed, though apt-get says so" % name, output)
        return "changed", output

    def _action(self, _index, step):
        return {
            "grub-regenerate": self._grub,
            "grub-trial": self._trial,
            "kdump-build-image": self._image,
            "kdump-reload": self._reload,
            "kdump-unload": self._unload,
        }[step["name"]](step)

    def _grub(self, _step):
        output = regenerate_grub(self.tree, self.shop)
        trial.disarm(self.tree, self.shop)
        trial.clean(self.tree)
        return "changed", output

    def _trial(self, step):
        """The entry, and nothing that boots it: it is chosen right before the reboot (kdo_txn.py reboot-once)."""
        # A package that was installed has made the menu anew: the default stays what it was, so that goes back.
        for item in self.tx.manifest["items"]:
            if item["path"] == doc.GRUB_CONFIG:
                self.tree.restore(item, self.tx.before)
        change_id = self.tx.change["id"]
        menu = self.tree.stat(doc.GRUB_CONFIG).st_mode & 0o777
        mode = None if self.tree.is_file(doc.GRUB_CUSTOM) else 0o600 | menu & 0o044  # no more open than the menu
        self.tree.write(doc.GRUB_CUSTOM, trial.Trial(self.tree, step, change_id).block(), mode)
        status, output, _ = self.shop.run("grub-check-custom")
        if status != 0:
            raise StepError("grub-script-check does not accept the new %s" % doc.GRUB_CUSTOM, output)
        if trial.there(self.tree) != change_id[:8]:
            raise StepError("%s does not hold the entry" % doc.GRUB_CUSTOM, output)
        return "changed", output

    def _image(self, step):
        release = step["release"]
        image = "%s/initrd.img-%s" % (scope.CAPTURE, release)
        before = self.tree.stat(image)
        kernel = "/boot/vmlinuz-" + release
        output = self.shop.must("kdump-hook", release, kernel)
        after = self.tree.stat(image)
        # The hook ends with 0 without having built anything in a chroot, or where it does not know the kernel.
        fresh = after is not None and after.st_size > 0
        if fresh and before is not None:
            fresh = (before.st_ino, before.st_mtime_ns) != (after.st_ino, after.st_mtime_ns)
        if not fresh:
            raise StepError("the hook ended well, but it built no %s" % image, output)
        # kdump-config throws the image away at load when this copy differs from what is configured.
        settings = self.tree.read(scope.CAPTURE_SYSCTL)
        if settings is not None:
            self.tree.write("%s/latest_sysctls-%s" % (scope.CAPTURE, release), settings, 0o644)
        if scope.loaded(self.tree) == "1":
            return "changed", (
                output + "\nThe links follow at the next load: they cannot change while one is loaded."
            ).strip()
        output = (output + "\n" + self.shop.must("kdump-symlinks", release)).strip()
        for name in ("vmlinuz", "initrd.img"):
            if not (self.tree.hash(scope.CAPTURE + "/" + name) or "").endswith("-" + release):
                raise StepError("%s/%s does not lead to %s" % (scope.CAPTURE, name, release), output)
        return "changed", output

    def _unload(self, _step):
        if scope.loaded(self.tree) != "1":
            return "unchanged", ""
        return "changed", unload(self.tree, self.shop)

    def _reload(self, _step):
        status, output, _ = self.shop.run("kdump-test")
        found = [failure for failure in _TEST_FAILURES if failure in output]
        if status != 0 or found:
            raise StepError("kdump-config test failed: %s" % (found[0] if found else "status %d" % status), output)
        output = self.shop.must("kdump-reload" if scope.loaded(self.tree) == "1" else "kdump-load")
        if scope.loaded(self.tree) != "1":
            raise StepError("kdump-config ended well, but no capture kernel is loaded", output)
        return "changed", output


def unload(tree, shop):
    """Take the capture kernel out of its memory. Returns what the command said."""
    output = shop.must("kdump-unload" if shop.has("kdump-unload") else "kexec-unload")
    if scope.loaded(tree) == "1":
        raise StepError("a capture kernel is still loaded", output)
    return output


def regenerate_grub(tree, shop):
    output = shop.must("grub-regenerate")
    info = tree.stat(doc.GRUB_CONFIG)
    if info is None or not info.st_size:
        raise StepError("%s is empty or gone after it was made anew" % doc.GRUB_CONFIG, output)
    if shop.has("grub-check"):
        status, said, _ = shop.run("grub-check")
        if status != 0:
            raise StepError("grub-script-check does not accept the new %s" % doc.GRUB_CONFIG, said)
    return output
