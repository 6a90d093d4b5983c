// SPDX-License-Identifier: GPL-2.0-only
/*
 * The thermal zones of a Jetson TX2. What they show is a parameter of this module, so that a test can warm the board:
 * /sys/module/tx2_thermal/parameters/millicelsius, one number a zone in the order below.
 */
#include <linux/err.h>
#include <linux/module.h>
#include <linux/thermal.h>

static const char *const names[] = {
	"BCPU-therm", "MCPU-therm", "GPU-therm", "PLL-therm",
	"Tboard_tegra", "Tdiode_tegra", "PMIC-Die", "thermal-fan-est",
};

static int millicelsius[ARRAY_SIZE(names)] = { 33500, 33500, 31000, 33500, 30000, 29750, 100000, 32400 };
module_param_array(millicelsius, int, NULL, 0644);
MODULE_PARM_DESC(millicelsius, "temperature of each zone in thousandths of a degree");

static struct thermal_zone_device *zones[ARRAY_SIZE(names)];

static int tx2_temperature(struct thermal_zone_device *zone, int *temperature)
{
	const int *shown = zone->devdata;

	*temperature = READ_ONCE(*shown);
	return 0;
}

static struct thermal_zone_device_ops tx2_ops = { .get_temp = tx2_temperature };
static struct thermal_zone_params tx2_params = { .no_hwmon = true };

static void tx2_thermal_remove(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		if (!IS_ERR_OR_NULL(zones[i]))
			thermal_zone_device_unregister(zones[i]);
}

static int __init tx2_thermal_load(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		zones[i] = thermal_zone_device_register(names[i], 0, 0, &millicelsius[i], &tx2_ops, &tx2_params,
							0, 0);
		if (IS_ERR(zones[i])) {
			int error = PTR_ERR(zones[i]);

			tx2_thermal_remove();
			return error;
		}
	}
	return 0;
}
module_init(tx2_thermal_load);

static void __exit tx2_thermal_unload(void)
{
	tx2_thermal_remove();
}
module_exit(tx2_thermal_unload);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Thermal zones of a virtual Jetson TX2");
