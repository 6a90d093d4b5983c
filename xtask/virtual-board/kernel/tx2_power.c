// SPDX-License-Identifier: GPL-2.0-only
/*
 * The power sensors of a Jetson TX2's module: an I2C bus with INA3221s at 0x40 and 0x41, to the kernel's own driver.
 *
 * The board draws what a load curve says, or what a power model makes of the time that its CPUs work. A register shows
 * what the chip would: the mean over the conversion that ended last, as long as its configuration register says, rounded
 * to the chip's steps. It is worked out when it is read, so that it is right however little time the emulated machine
 * gets.
 *
 *   /sys/kernel/debug/tx2_power/curve     lines of "MILLISECONDS MILLIWATTS", played in turn, again and again
 *   /sys/kernel/debug/tx2_power/model     "idle MILLIWATTS", and lines of "CLUSTER KHZ MILLIWATTS": what a busy CPU of
 *                                         denver or a57 adds at that clock
 *   /sys/kernel/debug/tx2_power/begun_ns  when that began, of CLOCK_MONOTONIC
 *   parameter failing                     of so many reads one fails with EAGAIN; 0: none
 */
#include <linux/cpufreq.h>
#include <linux/cpumask.h>
#include <linux/debugfs.h>
#include <linux/i2c.h>
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/swab.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

#define SUPPLY_V 19
#define SHUNT_MILLIOHM 10
#define BUS_STEP_MV 8
#define SHUNT_STEP_NV 40000
#define CHIPS 2
#define CHANNELS 3
#define FIRST_ADDRESS 0x40
#define MOST_SEGMENTS 512
#define MOST_TEXT 8192
#define MOST_MW 60000
#define MOST_MS 3600000

#define CONFIG 0x00
#define CONFIG_RESET 0x7127
#define FIRST_VALUE 0x01
#define LAST_VALUE 0x06
#define MANUFACTURER 0xfe
#define DIE 0xff

static unsigned int failing;
module_param(failing, uint, 0644);
MODULE_PARM_DESC(failing, "of so many reads of a power one fails with EAGAIN; 0: none");

/* What each channel carries of the total, which is channel 0 of 0x41, in thousandths. */
static const u32 shares[CHIPS][CHANNELS] = { { 60, 150, 5 }, { 1000, 500, 180 } };

struct segment {
	u64 ns;
	u64 mw;
};

static DEFINE_MUTEX(curve_lock);
static struct segment curve[MOST_SEGMENTS] = { { 1000000000, 1600 } };
static unsigned int segments = 1;
static u64 period_ns = 1000000000;
static u64 begun_ns;
static u16 registers[CHIPS][256];
static unsigned int reads;

#define CLUSTERS 2
#define STEPS 12
#define FIRST_KHZ 345600
#define STEP_KHZ 153600
#define SAMPLE_MS 20
/* As many as ten seconds have; a longer conversion shows the mean of those. */
#define SAMPLES 512

/* The power model: mW of the idle board, and what a busy CPU adds, by cluster (denver, a57) and step of its clock. */
struct model {
	u32 idle_mw;
	u32 busy_mw[CLUSTERS][STEPS];
};

struct sample {
	u64 ns;
	/* Energy so far in pJ, which is mW times ns. */
	u64 energy;
};

static struct model model;
static bool follows_load;
static struct sample history[SAMPLES];
/* Samples so far; the latest one has number `taken - 1`. */
static unsigned int taken;
/* Idle time of each CPU at the latest sample, and when that was, in µs. */
static u64 seen_idle[NR_CPUS];
static u64 seen_wall[NR_CPUS];

static int cluster_of(unsigned int cpu)
{
	return cpu == 1 || cpu == 2 ? 0 : 1;
}

/* Energy that a CPU has added since the latest sample, in pJ. */
static u64 energy_of(unsigned int cpu)
{
	u64 wall;
	u64 idle = get_cpu_idle_time(cpu, &wall, 0);
	u64 all = wall - seen_wall[cpu];
	u64 rest = idle > seen_idle[cpu] ? idle - seen_idle[cpu] : 0;
	u32 khz = cpufreq_quick_get(cpu);
	u32 step = khz > FIRST_KHZ ? min((khz - FIRST_KHZ) / STEP_KHZ, STEPS - 1U) : 0;
	bool known = seen_wall[cpu];

	seen_wall[cpu] = wall;
	seen_idle[cpu] = idle;
	return known && all > rest ? (all - rest) * 1000 * model.busy_mw[cluster_of(cpu)][step] : 0;
}

static void take_sample(void)
{
	struct sample fresh = { .ns = ktime_get_ns() };
	unsigned int cpu;

	if (taken) {
		struct sample *last = &history[(taken - 1) % SAMPLES];

		fresh.energy = last->energy + (fresh.ns - last->ns) * model.idle_mw;
	}
	for_each_possible_cpu(cpu) {
		if (cpu_online(cpu))
			fresh.energy += energy_of(cpu);
		else
			seen_wall[cpu] = 0;
	}
	history[taken++ % SAMPLES] = fresh;
}

static void sample_regularly(struct work_struct *work);
static DECLARE_DELAYED_WORK(sampler, sample_regularly);

static void sample_regularly(struct work_struct *work)
{
	mutex_lock(&curve_lock);
	if (follows_load) {
		take_sample();
		schedule_delayed_work(&sampler, msecs_to_jiffies(SAMPLE_MS));
	}
	mutex_unlock(&curve_lock);
}

/* Energy up to a time, in pJ: between two samples, power is even. */
static u64 energy_at(u64 ns)
{
	struct sample *after = &history[(taken - 1) % SAMPLES];
	unsigned int i;

	if (ns >= after->ns)
		return after->energy;
	for (i = 2; i <= min_t(unsigned int, taken, SAMPLES); i++) {
		struct sample *before = &history[(taken - i) % SAMPLES];

		if (before->ns <= ns)
			return before->energy + mul_u64_u64_div_u64(after->energy - before->energy, ns - before->ns,
								    after->ns - before->ns);
		after = before;
	}
	return after->energy;
}

/* Mean of the curve over `length` from `from`, in µW. */
static u64 curve_uw(u64 from, u64 length)
{
	u64 left = length;
	u64 sum = 0;
	unsigned int i = 0;

	div64_u64_rem(from, period_ns, &from);
	while (from >= curve[i].ns)
		from -= curve[i++].ns;
	while (left) {
		u64 part = min(left, curve[i].ns - from);

		sum += curve[i].mw * part;
		left -= part;
		from = 0;
		i = (i + 1) % segments;
	}
	return div64_u64(sum * 1000, length);
}

/* Time of one conversion of all channels, as the configuration says. */
static u64 conversion_ns(u16 config)
{
	static const u32 averages[] = { 1, 4, 16, 64, 128, 256, 512, 1024 };
	static const u32 times_us[] = { 140, 204, 332, 588, 1100, 2116, 4156, 8244 };
	u32 channels = hweight16(config & 0x7000);
	u32 us = times_us[config >> 6 & 7] + times_us[config >> 3 & 7];

	return (u64)averages[config >> 9 & 7] * us * max(channels, 1U) * 1000;
}

static u16 converted(int chip, u8 reg)
{
	u64 length = conversion_ns(registers[chip][CONFIG]);
	u64 now = ktime_get_ns() - begun_ns;
	u64 ended = div64_u64(now, length) * length;
	u64 from = ended < length ? 0 : ended - length;
	u64 mean_uw;
	u64 nanovolts;

	if (reg % 2 == 0)
		return SUPPLY_V * 1000 / BUS_STEP_MV << 3;
	/* The first conversion has nothing before it. */
	if (follows_load) {
		take_sample();
		mean_uw = div64_u64((energy_at(begun_ns + from + length) - energy_at(begun_ns + from)) * 1000, length);
	} else {
		mean_uw = curve_uw(from, length);
	}
	nanovolts = mean_uw * shares[chip][(reg - FIRST_VALUE) / 2] * SHUNT_MILLIOHM / (SUPPLY_V * 1000);
	return DIV_ROUND_CLOSEST_ULL(nanovolts, SHUNT_STEP_NV) << 3;
}

static int transfer(struct i2c_adapter *bus, u16 address, unsigned short flags, char direction, u8 reg, int size,
		    union i2c_smbus_data *data)
{
	int chip = address - FIRST_ADDRESS;
	int error = 0;

	if (chip < 0 || chip >= CHIPS)
		return -ENXIO;
	if (size == I2C_SMBUS_QUICK)
		return 0;
	if (size != I2C_SMBUS_WORD_DATA)
		return -EOPNOTSUPP;
	mutex_lock(&curve_lock);
	/* The chip is big-endian, words of SMBus are not. */
	if (direction == I2C_SMBUS_WRITE) {
		u16 value = swab16(data->word);

		if (reg == CONFIG && value & 0x8000)
			registers[chip][CONFIG] = CONFIG_RESET;
		else if (reg < MANUFACTURER)
			registers[chip][reg] = value;
	} else if (reg >= FIRST_VALUE && reg <= LAST_VALUE) {
		if (failing && ++reads % failing == 0)
			error = -EAGAIN;
		else
			data->word = swab16(converted(chip, reg));
	} else {
		data->word = swab16(registers[chip][reg]);
	}
	mutex_unlock(&curve_lock);
	return error;
}

static u32 functionality(struct i2c_adapter *bus)
{
	return I2C_FUNC_SMBUS_QUICK | I2C_FUNC_SMBUS_WORD_DATA;
}

static const struct i2c_algorithm algorithm = { .smbus_xfer = transfer, .functionality = functionality };

static struct i2c_adapter bus = {
	.owner = THIS_MODULE,
	.algo = &algorithm,
	.name = "power sensors of a virtual TX2",
};

/* Reads the lines of a curve into `fresh`; their number, or an error. */
static int parse(char *text, struct segment *fresh)
{
	int count = 0;
	char *line;

	while ((line = strsep(&text, "\n"))) {
		unsigned int ms, mw;
		char rest;

		*strchrnul(line, '#') = 0;
		line = strim(line);
		if (!*line)
			continue;
		if (sscanf(line, "%u %u %c", &ms, &mw, &rest) != 2 || !ms || ms > MOST_MS || mw > MOST_MW)
			return -EINVAL;
		if (count == MOST_SEGMENTS)
			return -E2BIG;
		fresh[count].ns = (u64)ms * 1000000;
		fresh[count].mw = mw;
		count++;
	}
	return count ? count : -EINVAL;
}

static ssize_t curve_write(struct file *file, const char __user *from, size_t length, loff_t *position)
{
	struct segment *fresh;
	char *text;
	int count;
	int i;

	/* A curve comes in one piece. */
	if (*position || length > MOST_TEXT)
		return -E2BIG;
	text = memdup_user_nul(from, length);
	if (IS_ERR(text))
		return PTR_ERR(text);
	fresh = kcalloc(MOST_SEGMENTS, sizeof(*fresh), GFP_KERNEL);
	count = fresh ? parse(text, fresh) : -ENOMEM;
	if (count > 0) {
		mutex_lock(&curve_lock);
		memcpy(curve, fresh, count * sizeof(*fresh));
		segments = count;
		follows_load = false;
		period_ns = 0;
		for (i = 0; i < count; i++)
			period_ns += fresh[i].ns;
		begun_ns = ktime_get_ns();
		mutex_unlock(&curve_lock);
		*position = length;
	}
	kfree(fresh);
	kfree(text);
	return count < 0 ? count : length;
}

/* Reads the lines of a model; 0 or an error. */
static int parse_model(char *text, struct model *fresh)
{
	char *line;
	int cluster;
	int step;

	while ((line = strsep(&text, "\n"))) {
		unsigned int khz, mw;
		char name[8];
		char rest;

		*strchrnul(line, '#') = 0;
		line = strim(line);
		if (!*line)
			continue;
		if (sscanf(line, "idle %u %c", &mw, &rest) == 1 && mw <= MOST_MW) {
			fresh->idle_mw = mw;
			continue;
		}
		if (sscanf(line, "%7s %u %u %c", name, &khz, &mw, &rest) != 3 || !mw || mw > MOST_MW)
			return -EINVAL;
		cluster = !strcmp(name, "denver") ? 0 : !strcmp(name, "a57") ? 1 : -1;
		if (cluster < 0 || khz < FIRST_KHZ || (khz - FIRST_KHZ) % STEP_KHZ || (khz - FIRST_KHZ) / STEP_KHZ >= STEPS)
			return -EINVAL;
		fresh->busy_mw[cluster][(khz - FIRST_KHZ) / STEP_KHZ] = mw;
	}
	for (cluster = 0; cluster < CLUSTERS; cluster++)
		for (step = 0; step < STEPS; step++)
			if (!fresh->busy_mw[cluster][step])
				return -EINVAL;
	return fresh->idle_mw ? 0 : -EINVAL;
}

static ssize_t model_write(struct file *file, const char __user *from, size_t length, loff_t *position)
{
	struct model fresh = {};
	char *text;
	int error;

	/* A model comes in one piece. */
	if (*position || length > MOST_TEXT)
		return -E2BIG;
	text = memdup_user_nul(from, length);
	if (IS_ERR(text))
		return PTR_ERR(text);
	error = parse_model(text, &fresh);
	kfree(text);
	if (error)
		return error;
	mutex_lock(&curve_lock);
	model = fresh;
	follows_load = true;
	taken = 0;
	memset(seen_wall, 0, sizeof(seen_wall));
	take_sample();
	begun_ns = history[0].ns;
	mutex_unlock(&curve_lock);
	mod_delayed_work(system_wq, &sampler, msecs_to_jiffies(SAMPLE_MS));
	*position = length;
	return length;
}

static const struct file_operations model_files = { .owner = THIS_MODULE, .write = model_write };
static const struct file_operations curve_files = { .owner = THIS_MODULE, .write = curve_write };

static struct dentry *folder;
static struct i2c_client *clients[CHIPS];

static int __init tx2_power_load(void)
{
	int error;
	int chip;

	begun_ns = ktime_get_ns();
	for (chip = 0; chip < CHIPS; chip++) {
		registers[chip][CONFIG] = CONFIG_RESET;
		registers[chip][MANUFACTURER] = 0x5449;
		registers[chip][DIE] = 0x3220;
	}
	error = i2c_add_adapter(&bus);
	if (error)
		return error;
	for (chip = 0; chip < CHIPS; chip++) {
		struct i2c_board_info info = { I2C_BOARD_INFO("ina3221", FIRST_ADDRESS + chip) };

		clients[chip] = i2c_new_client_device(&bus, &info);
		if (IS_ERR(clients[chip])) {
			error = PTR_ERR(clients[chip]);
			/* The clients that are there go with the bus. */
			i2c_del_adapter(&bus);
			return error;
		}
	}
	folder = debugfs_create_dir("tx2_power", NULL);
	debugfs_create_file("curve", 0200, folder, NULL, &curve_files);
	debugfs_create_file("model", 0200, folder, NULL, &model_files);
	debugfs_create_u64("begun_ns", 0444, folder, &begun_ns);
	return 0;
}
module_init(tx2_power_load);

static void __exit tx2_power_unload(void)
{
	debugfs_remove_recursive(folder);
	follows_load = false;
	cancel_delayed_work_sync(&sampler);
	i2c_del_adapter(&bus);
}
module_exit(tx2_power_unload);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Power sensors of a virtual Jetson TX2");
