# SPDX-License-Identifier: Apache-2.0
"""What an action is: a step with a name, whose commands and files are known here and not in the plan.

A boot stack brings its actions in a module of its own, and so does a family what belongs to it; the engine only asks.
"""


class StepError(Exception):
    """A step did not do what it was meant to. ``output`` is what a command said."""

    def __init__(self, why, output=""):
        Exception.__init__(self, why)
        self.why, self.output = why, output


class Action(object):
    """``members``: what the step holds besides op and name. ``captures``: it works on the capture image or what is loaded,
    ``loads``: it changes which capture kernel is loaded."""

    members = ()
    captures = False
    loads = False

    def __init__(self, name):
        self.name = name

    def check(self, step):
        """None, or why the step's members are not as they must be (that they are there is known already)."""

    def what(self, step):
        """One line for people."""
        return self.name

    def reach(self, tree, family, step, add):
        """``add(kind, *paths)`` for all that it may write; a path in ``add.trees`` is recorded with all below it."""

    def look(self, look, family, step):
        """Whether it would change something; raises Refused if it cannot be done."""
        return True

    def do(self, doer, family, step):
        """(result, output); raises StepError or CommandError."""
        raise NotImplementedError

    def undo_first(self, undo, step):
        """Before files are put back."""

    def undo_after(self, undo, step):
        """After files are put back."""

    def made_anew(self, undo, path):
        """Make a file of kind ``anew`` again, because somebody else has changed it since."""


class Trial(Action):
    """An action that makes a boot entry for exactly one boot, and nothing that boots it."""

    members = ("ensure", "remove")

    def there(self, tree):
        """Mark (eight hexadecimal digits) of the entry that is there, or None."""
        raise NotImplementedError

    def possible(self, tree, shop, step, change_id):
        """Raises Refused if arguments cannot be tried for one boot."""
        raise NotImplementedError

    def arm(self, tree, shop, change_id):
        """Choose the entry for the next boot; raises CommandError if that did not happen."""
        raise NotImplementedError

    def disarm(self, tree, shop):
        """No choice of ours for the next boot. Somebody else's stays. True if there was one."""
        raise NotImplementedError

    def clean(self, tree):
        """Take our entry away. True if there was one."""
        raise NotImplementedError


class Family(object):
    """How one family's own tools are driven: packages, the capture image, loading it."""

    name = ""
    units = {}  # unit → links that enabling it makes
    script_links = ()  # (folder, pattern) of links that come and go with a SysV script
    packages = ()  # names that a plan may install
    menu = ""  # the action that makes the boot menu, which installing a package may make anew
    brings = {}  # file → packages that bring it
    argument = "crashkernel="  # what the running command line must have for a load
    unloader = ""  # its own command that takes the capture kernel out; kexec does it where that is not there
    kept_knobs = ()  # kernel settings that its loader changes

    def installed(self, tree, shop):
        """``{package: status}``; "installed" is the one that counts. Empty: this cannot be told here."""
        return {}

    def look_install(self, look, missing):
        """Raises Refused if the packages cannot be installed."""
        raise NotImplementedError

    def install(self, doer, index, missing):
        """Install, after writing to the journal which packages that will bring. Returns the output."""
        raise NotImplementedError

    def uninstall(self, undo):
        """Take away what the journal says we brought."""

    def install_reach(self, tree, add):
        """All that an installation may write and an undo has to put back."""

    def capture_reach(self, tree, change, releases, add):
        """All that building an image for one of the releases, or loading it, may write."""

    def edit_reach(self, tree, step, add):
        """``add("later", …)`` for what the family's own service makes at a later boot because of an edit, and nobody else."""

    def keeps_inode(self, path):
        """Whether a hard link keeps the old content: large files that are made anew under another name each time."""
        return False

    def look_image(self, look, release):
        """Raises Refused if the image cannot be built."""
        raise NotImplementedError

    def build(self, doer, release):
        """Build the image. Returns the output."""
        raise NotImplementedError

    def look_load(self, look):
        """Raises Refused if nothing can be loaded by this family's tools."""
        raise NotImplementedError

    def check_load(self, doer):
        """Raises StepError if the family's own dry run finds something wrong."""

    def load(self, tree, shop):
        """Load the capture kernel, or load it again. Returns the output."""
        raise NotImplementedError

    def look_unload(self, look):
        """Raises Refused if nothing can take the capture kernel out."""
        look.commands(self._unloader(look.shop))

    def unload(self, tree, shop):
        """Take the capture kernel out. Returns the output."""
        return shop.must(self._unloader(shop))

    def _unloader(self, shop):
        return self.unloader if self.unloader and shop.has(self.unloader) else "kexec-unload"
