// SPDX-License-Identifier: GPL-2.0-only
/*
 * The clocks of a Jetson TX2's GPU and memory, as far as software can see them: a devfreq device with NVIDIA's steps,
 * the memory controller's files in debugfs, and the cap that a power mode puts on it. They remember what was set.
 */
#include <linux/debugfs.h>
#include <linux/devfreq.h>
#include <linux/device.h>
#include <linux/err.h>
#include <linux/kobject.h>
#include <linux/module.h>
#include <linux/pm_opp.h>
#include <linux/sysfs.h>

#define EMC_MIN 40800000ULL
#define EMC_MAX 1866000000ULL

static unsigned long gpu_steps[] = {
	114750000, 216750000, 318750000, 420750000, 522750000, 624750000, 726750000,
	828750000, 930750000, 1032750000, 1134750000, 1236750000, 1300500000,
};

static struct device *gpu;
static struct devfreq *gpu_clock;
static unsigned long gpu_hz = 114750000;

static int gpu_target(struct device *device, unsigned long *hz, u32 flags)
{
	struct dev_pm_opp *step = devfreq_recommended_opp(device, hz, flags);

	if (IS_ERR(step))
		return PTR_ERR(step);
	dev_pm_opp_put(step);
	gpu_hz = *hz;
	return 0;
}

static int gpu_current(struct device *device, unsigned long *hz)
{
	*hz = gpu_hz;
	return 0;
}

/* Nothing runs on it. */
static int gpu_status(struct device *device, struct devfreq_dev_status *status)
{
	status->busy_time = 0;
	status->total_time = 1;
	status->current_frequency = gpu_hz;
	return 0;
}

static struct devfreq_dev_profile gpu_profile = {
	.initial_freq = 114750000,
	.polling_ms = 1000,
	.target = gpu_target,
	.get_dev_status = gpu_status,
	.get_cur_freq = gpu_current,
	.freq_table = gpu_steps,
	.max_state = ARRAY_SIZE(gpu_steps),
};

static ssize_t load_show(struct device *device, struct device_attribute *attribute, char *text)
{
	return sysfs_emit(text, "0\n");
}
static DEVICE_ATTR_RO(load);

/* The memory's clock: between its limits, and not above the cap of the power mode. Zero is no cap. */
static u64 emc_rate = EMC_MAX;
static u64 emc_min = EMC_MIN;
static u64 emc_max = EMC_MAX;
static u64 emc_cap;
static u64 emc_locked;

static int emc_get(void *data, u64 *value)
{
	*value = emc_cap && emc_cap < emc_rate ? emc_cap : emc_rate;
	return 0;
}

static int emc_set(void *data, u64 value)
{
	emc_rate = clamp(value, EMC_MIN, EMC_MAX);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(emc_files, emc_get, emc_set, "%llu\n");

static ssize_t emc_iso_cap_show(struct kobject *object, struct kobj_attribute *attribute, char *text)
{
	return sysfs_emit(text, "%llu\n", emc_cap);
}

static ssize_t emc_iso_cap_store(struct kobject *object, struct kobj_attribute *attribute, const char *text,
				 size_t length)
{
	int error = kstrtou64(text, 0, &emc_cap);

	return error ? error : length;
}
static struct kobj_attribute emc_iso_cap = __ATTR_RW(emc_iso_cap);

static struct dentry *bpmp;
static struct kobject *caps;

static int emc_load(void)
{
	struct dentry *emc;
	int error;

	caps = kobject_create_and_add("nvpmodel_emc_cap", kernel_kobj);
	if (!caps)
		return -ENOMEM;
	error = sysfs_create_file(caps, &emc_iso_cap.attr);
	if (error) {
		kobject_put(caps);
		return error;
	}
	bpmp = debugfs_create_dir("bpmp", NULL);
	emc = debugfs_create_dir("emc", debugfs_create_dir("clk", debugfs_create_dir("debug", bpmp)));
	debugfs_create_file_unsafe("rate", 0644, emc, NULL, &emc_files);
	debugfs_create_u64("min_rate", 0444, emc, &emc_min);
	debugfs_create_u64("max_rate", 0444, emc, &emc_max);
	debugfs_create_u64("mrq_rate_locked", 0644, emc, &emc_locked);
	return 0;
}

static void emc_unload(void)
{
	debugfs_remove_recursive(bpmp);
	kobject_put(caps);
}

static void gpu_unload(void)
{
	if (!IS_ERR_OR_NULL(gpu_clock))
		devfreq_remove_device(gpu_clock);
	sysfs_remove_link(gpu->kobj.parent, "gpu.0");
	device_remove_file(gpu, &dev_attr_load);
	dev_pm_opp_remove_all_dynamic(gpu);
	root_device_unregister(gpu);
}

static int gpu_load(void)
{
	int error = 0;
	int i;

	gpu = root_device_register("17000000.gp10b");
	if (IS_ERR(gpu))
		return PTR_ERR(gpu);
	for (i = 0; i < ARRAY_SIZE(gpu_steps) && !error; i++)
		error = dev_pm_opp_add(gpu, gpu_steps[i], 0);
	error = error ?: device_create_file(gpu, &dev_attr_load);
	error = error ?: sysfs_create_link(gpu->kobj.parent, &gpu->kobj, "gpu.0");
	if (!error) {
		gpu_clock = devfreq_add_device(gpu, &gpu_profile, "simple_ondemand", NULL);
		error = PTR_ERR_OR_ZERO(gpu_clock);
	}
	if (error)
		gpu_unload();
	return error;
}

static int __init tx2_clocks_load(void)
{
	int error = gpu_load();

	if (error)
		return error;
	error = emc_load();
	if (error)
		gpu_unload();
	return error;
}
module_init(tx2_clocks_load);

static void __exit tx2_clocks_unload(void)
{
	emc_unload();
	gpu_unload();
}
module_exit(tx2_clocks_unload);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("GPU and memory clocks of a virtual Jetson TX2");
