// SPDX-License-Identifier: GPL-2.0-only
/*
 * Crashes the kernel that it is loaded into, in a way that nothing in user space can.
 * kind=oops: a read through a null pointer. kind=lockup: this CPU never comes back to the scheduler.
 */
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/processor.h>
#include <linux/string.h>

static char *kind = "oops";
module_param(kind, charp, 0400);
MODULE_PARM_DESC(kind, "oops or lockup");

static int *volatile nowhere;

static int __init kdo_crash_init(void)
{
	if (!strcmp(kind, "oops"))
		return *nowhere;
	if (!strcmp(kind, "lockup")) {
		preempt_disable();
		for (;;)
			cpu_relax();
	}
	return -EINVAL;
}
module_init(kdo_crash_init);

MODULE_DESCRIPTION("kdump-orchestrator: crashes for rehearsals");
MODULE_LICENSE("GPL");
