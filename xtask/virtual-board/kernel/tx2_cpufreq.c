// SPDX-License-Identifier: GPL-2.0-only
/*
 * The clocks of a Jetson TX2's CPUs, as far as software can see them: two clusters with NVIDIA's steps that
 * remember what was set.
 *
 *   parameter slow   whether a lower clock makes a CPU slower: of each period, a busy CPU loses the share by which its
 *                    clock is below the highest one. Otherwise clocks change nothing.
 */
#include <linux/cpufreq.h>
#include <linux/cpuhotplug.h>
#include <linux/cpumask.h>
#include <linux/hrtimer.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/sched.h>

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

#define HIGHEST_KHZ 2035200
/* Short against a frame, long against an interrupt of an emulated CPU. */
#define PERIOD_NS (4 * NSEC_PER_MSEC)

static DEFINE_PER_CPU(struct hrtimer, loss);
static bool slow;
static int slow_state;

/*
 * Keeps a busy CPU from its work for its share of the period, which ends at a fixed time after the timer's own. So time in
 * which the host had stopped the CPU counts as lost: on a busy host, it would else spend each of its short turns here, and
 * do no work at all.
 */
static enum hrtimer_restart lose(struct hrtimer *timer)
{
	u64 share = div_u64((u64)PERIOD_NS * (HIGHEST_KHZ - tx2_get(smp_processor_id())), HIGHEST_KHZ);
	u64 lost = is_idle_task(current) ? 0 : share;
	ktime_t until = ktime_add_ns(hrtimer_get_expires(timer), lost);

	while (ktime_before(ktime_get(), until))
		cpu_relax();
	hrtimer_set_expires(timer, ktime_add_ns(ktime_get(), PERIOD_NS - lost));
	return HRTIMER_RESTART;
}

static int start_losing(unsigned int cpu)
{
	struct hrtimer *timer = per_cpu_ptr(&loss, cpu);

	hrtimer_init(timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED);
	timer->function = lose;
	hrtimer_start(timer, ns_to_ktime(PERIOD_NS), HRTIMER_MODE_REL_PINNED);
	return 0;
}

static int stop_losing(unsigned int cpu)
{
	hrtimer_cancel(per_cpu_ptr(&loss, cpu));
	return 0;
}

static int set_slow(const char *text, const struct kernel_param *parameter)
{
	bool wanted;
	int error = kstrtobool(text, &wanted);

	if (error || wanted == slow)
		return error;
	if (wanted) {
		/* Calls the function on each CPU, and on those that come online later. */
		slow_state = cpuhp_setup_state(CPUHP_AP_ONLINE_DYN, "tx2:slow", start_losing, stop_losing);
		if (slow_state < 0)
			return slow_state;
	} else {
		cpuhp_remove_state(slow_state);
	}
	slow = wanted;
	return 0;
}

static const struct kernel_param_ops slow_operations = { .set = set_slow, .get = param_get_bool };
module_param_cb(slow, &slow_operations, &slow, 0644);
MODULE_PARM_DESC(slow, "whether a lower clock makes a CPU slower");

static int __init tx2_cpufreq_load(void)
{
	return cpufreq_register_driver(&tx2_driver);
}
module_init(tx2_cpufreq_load);

static void __exit tx2_cpufreq_unload(void)
{
	if (slow)
		cpuhp_remove_state(slow_state);
	cpufreq_unregister_driver(&tx2_driver);
}
module_exit(tx2_cpufreq_unload);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("CPU clocks of a virtual Jetson TX2");
