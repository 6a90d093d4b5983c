// SPDX-License-Identifier: GPL-2.0-only
/*
 * The clocks of a Jetson TX2's CPUs, as far as software can see them: two clusters with NVIDIA's steps that
 * remember what was set. An emulated CPU is not made slower or faster by them.
 */
#include <linux/cpufreq.h>
#include <linux/cpumask.h>
#include <linux/module.h>

/* CPUs 1 and 2 are the Denver cluster of a TX2, the others its A57s. */
static const unsigned int denver[] = { 1, 2 };
static const unsigned int a57[] = { 0, 3, 4, 5 };

#define STEP(khz) { .frequency = (khz) }

static struct cpufreq_frequency_table steps[] = {
	STEP(345600), STEP(499200), STEP(652800), STEP(806400), STEP(960000), STEP(1113600),
	STEP(1267200), STEP(1420800), STEP(1574400), STEP(1728000), STEP(1881600), STEP(2035200),
	{ .frequency = CPUFREQ_TABLE_END },
};

/* Current clock of each cluster in kHz; the A57s come first. */
static unsigned int current_khz[2] = { 2035200, 2035200 };

static int cluster_of(unsigned int cpu)
{
	return cpu == denver[0] || cpu == denver[1];
}

static unsigned int tx2_get(unsigned int cpu)
{
	return current_khz[cluster_of(cpu)];
}

static int tx2_set(struct cpufreq_policy *policy, unsigned int index)
{
	current_khz[cluster_of(policy->cpu)] = steps[index].frequency;
	return 0;
}

/*
 * Called by the schedutil governor itself. Without it that governor has a deadline thread a cluster, and this kernel
 * then refuses to take the last of isolated CPUs offline.
 */
static unsigned int tx2_fast_switch(struct cpufreq_policy *policy, unsigned int khz)
{
	int index = cpufreq_frequency_table_target(policy, khz, policy->min, policy->max, CPUFREQ_RELATION_L);

	current_khz[cluster_of(policy->cpu)] = steps[index].frequency;
	return steps[index].frequency;
}

static int tx2_init(struct cpufreq_policy *policy)
{
	const unsigned int *cpus = cluster_of(policy->cpu) ? denver : a57;
	int count = cluster_of(policy->cpu) ? ARRAY_SIZE(denver) : ARRAY_SIZE(a57);
	int i;

	for (i = 0; i < count; i++)
		if (cpu_possible(cpus[i]))
			cpumask_set_cpu(cpus[i], policy->cpus);
	policy->freq_table = steps;
	policy->fast_switch_possible = true;
	policy->cur = current_khz[cluster_of(policy->cpu)];
	/* Ten times as seldom as on a board: a change of clock costs an emulated CPU much more. */
	policy->cpuinfo.transition_latency = 3000 * 1000;
	return 0;
}

static int tx2_exit(struct cpufreq_policy *policy)
{
	return 0;
}

static struct cpufreq_driver tx2_driver = {
	.name = "tegra_cpufreq",
	.flags = CPUFREQ_HAVE_GOVERNOR_PER_POLICY,
	.verify = cpufreq_generic_frequency_table_verify,
	.target_index = tx2_set,
	.fast_switch = tx2_fast_switch,
	.get = tx2_get,
	.init = tx2_init,
	.exit = tx2_exit,
	.attr = cpufreq_generic_attr,
};

static int __init tx2_cpufreq_load(void)
{
	return cpufreq_register_driver(&tx2_driver);
}
module_init(tx2_cpufreq_load);

static void __exit tx2_cpufreq_unload(void)
{
	cpufreq_unregister_driver(&tx2_driver);
}
module_exit(tx2_cpufreq_unload);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("CPU clocks of a virtual Jetson TX2");
