// SPDX-License-Identifier: GPL-2.0-only
/*
 * The same sensors as NVIDIA's kernel of JetPack 4 shows them: a driver "ina3221x" with a folder "iio:deviceN" below
 * each chip, rails with NVIDIA's names, and power beside voltage and current. Only what readers of that layout use.
 */
#include <linux/device.h>
#include <linux/err.h>
#include <linux/i2c.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/sysfs.h>

#define SHUNT_MILLIOHM 10
#define BUS_STEP_MV 8
#define SHUNT_STEP_UV 40
#define CHANNELS 3
#define FIRST_ADDRESS 0x40
#define CONFIG 0x00
/* Three channels, 64 averages, 1.1 ms each, continuously. */
#define CONFIG_VALUE 0x7727

static const char *const rails[][CHANNELS] = {
	{ "VDD_SYS_GPU", "VDD_SYS_SOC", "VDD_4V0_WIFI" },
	{ "VDD_IN", "VDD_SYS_CPU", "VDD_SYS_DDR" },
};

enum kind { NAME, MILLIVOLTS, MILLIAMPERES, MILLIWATTS };

struct channel_file {
	struct device_attribute attribute;
	enum kind kind;
	int channel;
};

static int millivolts(struct i2c_client *chip, int channel)
{
	int word = i2c_smbus_read_word_swapped(chip, 2 + 2 * channel);

	return word < 0 ? word : (s16)word / 8 * BUS_STEP_MV;
}

static int milliamperes(struct i2c_client *chip, int channel)
{
	int word = i2c_smbus_read_word_swapped(chip, 1 + 2 * channel);

	return word < 0 ? word : (s16)word / 8 * SHUNT_STEP_UV / SHUNT_MILLIOHM;
}

static ssize_t show(struct device *device, struct device_attribute *attribute, char *text)
{
	struct channel_file *file = container_of(attribute, struct channel_file, attribute);
	struct i2c_client *chip = to_i2c_client(device->parent);
	int volts, amperes;

	if (file->kind == NAME)
		return sysfs_emit(text, "%s\n", rails[chip->addr - FIRST_ADDRESS][file->channel]);
	volts = file->kind == MILLIAMPERES ? 0 : millivolts(chip, file->channel);
	if (volts < 0)
		return volts;
	amperes = file->kind == MILLIVOLTS ? 0 : milliamperes(chip, file->channel);
	if (amperes < 0)
		return amperes;
	if (file->kind == MILLIVOLTS)
		return sysfs_emit(text, "%d\n", volts);
	if (file->kind == MILLIAMPERES)
		return sysfs_emit(text, "%d\n", amperes);
	return sysfs_emit(text, "%d\n", volts * amperes / 1000);
}

#define FILE_OF(label, what, number) { __ATTR(label, 0444, show, NULL), what, number }
#define FILES_OF(number)                                                                       \
	FILE_OF(rail_name_##number, NAME, number),                                             \
	FILE_OF(in_voltage##number##_input, MILLIVOLTS, number),                               \
	FILE_OF(in_current##number##_input, MILLIAMPERES, number),                             \
	FILE_OF(in_power##number##_input, MILLIWATTS, number)

static struct channel_file files[] = { FILES_OF(0), FILES_OF(1), FILES_OF(2) };
static struct attribute *attributes[ARRAY_SIZE(files) + 1];
static const struct attribute_group group = { .attrs = attributes };
static const struct attribute_group *groups[] = { &group, NULL };

static void release(struct device *device)
{
	kfree(device);
}

static int ina3221x_probe(struct i2c_client *chip)
{
	int number = chip->addr - FIRST_ADDRESS;
	struct device *device;
	int error;

	if (number < 0 || number >= ARRAY_SIZE(rails))
		return -ENODEV;
	error = i2c_smbus_write_word_swapped(chip, CONFIG, CONFIG_VALUE);
	if (error)
		return error;
	device = kzalloc(sizeof(*device), GFP_KERNEL);
	if (!device)
		return -ENOMEM;
	device->parent = &chip->dev;
	device->groups = groups;
	device->release = release;
	error = dev_set_name(device, "iio:device%d", number);
	if (!error)
		error = device_register(device);
	if (error) {
		put_device(device);
		return error;
	}
	i2c_set_clientdata(chip, device);
	return 0;
}

static void ina3221x_remove(struct i2c_client *chip)
{
	device_unregister(i2c_get_clientdata(chip));
}

static const struct i2c_device_id ids[] = { { "ina3221", 0 }, { } };

static struct i2c_driver ina3221x_driver = {
	.driver = { .name = "ina3221x" },
	.probe_new = ina3221x_probe,
	.remove = ina3221x_remove,
	.id_table = ids,
};

static int __init ina3221x_load(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(files); i++) {
		sysfs_attr_init(&files[i].attribute.attr);
		attributes[i] = &files[i].attribute.attr;
	}
	return i2c_add_driver(&ina3221x_driver);
}
module_init(ina3221x_load);

static void __exit ina3221x_unload(void)
{
	i2c_del_driver(&ina3221x_driver);
}
module_exit(ina3221x_unload);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Power sensors of a virtual Jetson TX2, laid out as in JetPack 4");
