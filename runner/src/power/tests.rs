use super::Sampler;
use super::meter::find;
use super::rail::Rail;
use protocol::{Meter, MeterKind, NamedRail, PowerReadings};
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A chip as NVIDIA's kernel 4.9 shows it.
fn iio(root: &Path, device: &str, address: &str, rails: [&str; 3]) {
    for (channel, rail) in rails.iter().enumerate() {
        let file = |name: &str| format!("bus/i2c/drivers/ina3221x/{address}/iio:{device}/{name}");
        write(root, &file(&format!("rail_name_{channel}")), &format!("{rail}\n"));
        write(root, &file(&format!("in_power{channel}_input")), &format!("{}\n", 1000 + channel));
        write(root, &file(&format!("in_voltage{channel}_input")), "19000\n");
        write(root, &file(&format!("in_current{channel}_input")), "60\n");
    }
}

/// A chip as hwmon shows it; no label where it is empty. The fourth input is the sum of shunt voltages.
fn hwmon(root: &Path, number: u32, address: &str, labels: [&str; 3]) {
    let device = root.join("devices/i2c-1").join(address);
    fs::create_dir_all(&device).unwrap();
    let folder = format!("class/hwmon/hwmon{number}");
    write(root, &format!("{folder}/name"), "ina3221\n");
    std::os::unix::fs::symlink(&device, root.join(&folder).join("device")).unwrap();
    for (label, channel) in labels.iter().zip(1..) {
        if !label.is_empty() {
            write(root, &format!("{folder}/in{channel}_label"), &format!("{label}\n"));
        }
        write(root, &format!("{folder}/in{channel}_input"), "5000\n");
        write(root, &format!("{folder}/curr{channel}_input"), "-4\n");
    }
    write(root, &format!("{folder}/in4_label"), "sum of shunt voltages\n");
    write(root, &format!("{folder}/in4_input"), "1\n");
}

fn meter(root: &TempDir, kind: MeterKind, total: &str) -> Meter {
    Meter {
        kind,
        root: root.path().display().to_string(),
        total: total.split(' ').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
    }
}

fn ina3221(root: &TempDir, total: &str, named: &[(&str, u32, u32)]) -> Meter {
    let rails = named.iter().map(|(name, address, channel)| NamedRail {
        name: (*name).to_owned(),
        address: *address,
        channel: *channel,
    });
    meter(root, MeterKind::Ina3221 { rails: rails.collect() }, total)
}

fn names(meter: &Meter) -> Vec<String> {
    find(meter).unwrap().rails.iter().map(|rail| rail.name().to_owned()).collect()
}

fn error_of(meter: &Meter) -> String {
    find(meter).err().unwrap()
}

#[test]
fn rails_of_jetpack_4_are_found_by_label() {
    let root = tempfile::tempdir().unwrap();
    iio(root.path(), "device7", "0-0040", ["VDD_SYS_GPU", "VDD_SYS_SOC", "VDD_4V0_WIFI"]);
    iio(root.path(), "device0", "0-0041", ["VDD_IN", "NC", "VDD_SYS_DDR"]);
    let meter = ina3221(&root, "VDD_IN", &[]);
    let found = find(&meter).unwrap();
    assert_eq!(found.driver, "ina3221x by iio");
    assert_eq!(names(&meter), ["VDD_IN", "VDD_SYS_GPU", "VDD_SYS_SOC", "VDD_4V0_WIFI", "VDD_SYS_DDR"]);
    let mut total = found.rails.into_iter().next().unwrap();
    assert_eq!(total.read(), Some(60), "the current shows a new conversion");
    let readings = total.into_readings();
    assert_eq!(
        (&readings.milliwatts[..], &readings.millivolts[..], &readings.milliamperes[..]),
        (&[1000][..], &[19000][..], &[60][..])
    );
    assert!(readings.source.ends_with("0-0041/iio:device0/in_power0_input"), "{}", readings.source);
    assert_eq!(readings.begun_ns.len(), 1);
}

#[test]
fn rails_of_hwmon_are_found_and_may_be_negative() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "class/hwmon/hwmon0/name", "nvme\n");
    hwmon(root.path(), 3, "1-0040", ["VDD_GPU_SOC", "NC", "VDD_CPU_CV"]);
    hwmon(root.path(), 1, "1-0041", ["VIN_SYS_5V0", "NC", "VDDQ"]);
    let meter = ina3221(&root, "VDDQ VIN_SYS_5V0", &[]);
    let found = find(&meter).unwrap();
    assert_eq!((found.driver.as_str(), found.total.as_str()), ("ina3221 by hwmon", "VDDQ + VIN_SYS_5V0"));
    assert_eq!(names(&meter), ["VDDQ", "VIN_SYS_5V0", "VDD_GPU_SOC", "VDD_CPU_CV"]);
    let mut total = found.rails.into_iter().next().unwrap();
    assert_eq!(total.read(), Some(-4));
    let readings = total.into_readings();
    assert_eq!((readings.millivolts, readings.milliamperes), (vec![5000], vec![-4]));
    assert!(readings.milliwatts.is_empty());
}

#[test]
fn chips_are_found_in_the_drivers_folder_too() {
    let root = tempfile::tempdir().unwrap();
    let folder = "bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon4";
    for (name, text) in
        [("name", "ina3221"), ("in1_label", "VDD_IN"), ("in1_input", "1"), ("curr1_input", "2")]
    {
        write(root.path(), &format!("{folder}/{name}"), text);
    }
    assert_eq!(names(&ina3221(&root, "VDD_IN", &[])), ["VDD_IN"]);
    assert_eq!(names(&ina3221(&root, "module", &[("module", 0x40, 0)])), ["module"]);
}

#[test]
fn channels_without_labels_are_named_in_the_boards_file() {
    let root = tempfile::tempdir().unwrap();
    hwmon(root.path(), 0, "1-0041", ["", "", ""]);
    let named = [("VDD_IN", 0x41, 0), ("VDD_SYS_CPU", 0x41, 1)];
    assert_eq!(names(&ina3221(&root, "VDD_IN", &named)), ["VDD_IN", "VDD_SYS_CPU"]);
    let message = error_of(&ina3221(&root, "VDD_IN", &[("VDD_IN", 0x40, 0)]));
    assert!(message.contains("address 0x40") && message.contains("found 0x41; correct `rails`"), "{message}");
}

#[test]
fn a_meter_that_does_not_match_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let message = error_of(&ina3221(&root, "VDD_IN", &[]));
    assert!(message.starts_with("failed to find an INA3221 below"), "{message}");
    hwmon(root.path(), 0, "1-0040", ["A", "B", "B"]);
    let message = error_of(&ina3221(&root, "VDD_IN", &[]));
    assert!(message.contains("found A, B, B; correct `total`"), "{message}");
    let message = error_of(&ina3221(&root, "A", &[]));
    assert!(message.contains("two have the name B"), "{message}");
    let message = error_of(&meter(&root, MeterKind::Rapl, "package-0"));
    assert!(message.starts_with("failed to find energy counters below"), "{message}");
}

#[test]
fn energy_counters_are_found_with_their_range() {
    let root = tempfile::tempdir().unwrap();
    for (zone, name) in [("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core"), ("intel-rapl:1", "psys")]
    {
        write(root.path(), &format!("class/powercap/{zone}/name"), &format!("{name}\n"));
        write(root.path(), &format!("class/powercap/{zone}/energy_uj"), "123456789\n");
        write(root.path(), &format!("class/powercap/{zone}/max_energy_range_uj"), "262143328850\n");
    }
    write(root.path(), "class/powercap/intel-rapl/enabled", "1\n");
    let meter = meter(&root, MeterKind::Rapl, "psys");
    assert_eq!(names(&meter), ["psys", "package-0", "package-0/core"]);
    let mut total = find(&meter).unwrap().rails.remove(0);
    assert!(total.is_counter());
    assert_eq!(total.read(), None, "a counter shows no conversions");
    let readings = total.into_readings();
    assert_eq!(
        (readings.microjoules, readings.range_microjoules),
        (vec![123_456_789], Some(262_143_328_850))
    );
}

#[test]
fn failed_readings_are_counted_and_not_replaced() {
    let root = tempfile::tempdir().unwrap();
    hwmon(root.path(), 0, "1-0040", ["VDD_IN", "NC", "NC"]);
    let current = root.path().join("class/hwmon/hwmon0/curr1_input");
    let mut rail: Rail = find(&ina3221(&root, "VDD_IN", &[])).unwrap().rails.remove(0);
    rail.read();
    fs::write(&current, "none\n").unwrap();
    rail.read();
    rail.read();
    fs::remove_file(&current).unwrap();
    rail.read();
    fs::write(&current, "7\n").unwrap();
    assert_eq!(rail.read(), Some(7), "a sensor that works again is read again");
    let readings = rail.into_readings();
    assert_eq!((readings.milliamperes, readings.millivolts.len()), (vec![-4, 7], 2));
    assert_eq!((readings.begun_ns.len(), readings.took_ns.len()), (2, 2));
    let errors: Vec<_> = readings.errors.iter().map(|error| (error.message.as_str(), error.count)).collect();
    assert_eq!(errors, [("\"none\" is not a number", 2), ("No such file or directory (os error 2)", 1)]);
    assert!(readings.errors[0].last_ns > readings.errors[0].first_ns);
}

/// Readings of longer and longer times, until they are as expected: other load may leave little time to the thread that reads.
fn sampled(meter: &Meter, is_expected: impl Fn(&PowerReadings) -> bool) -> PowerReadings {
    let mut last = None;
    for length in 1..=12 {
        let sampler = Sampler::start(meter, &[]).unwrap();
        std::thread::sleep(length * Duration::from_millis(300));
        let readings = sampler.finish().unwrap();
        if is_expected(&readings) {
            return readings;
        }
        last = Some(readings);
    }
    panic!("not as expected: {last:?}");
}

#[test]
fn a_sampler_reads_until_it_is_ended() {
    let root = tempfile::tempdir().unwrap();
    hwmon(root.path(), 0, "1-0040", ["VDD_IN", "VDD_CPU", "NC"]);
    let meter = ina3221(&root, "VDD_IN", &[]);
    let readings = sampled(&meter, |readings| {
        let counts: Vec<_> = readings.rails.iter().map(|rail| rail.begun_ns.len()).collect();
        counts[0] >= 3 && counts[1] >= 2 && counts[1] < counts[0]
    });
    assert!(readings.rails[0].begun_ns.is_sorted());
    assert!(readings.cpu_ns > 0);
}

#[test]
fn the_total_is_a_known_rail_or_the_one_in_the_boards_file() {
    for (rails, found) in [
        (["VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"], Ok("VDD_IN")),
        (["POM_5V_CPU", "POM_5V_IN", "POM_5V_GPU"], Ok("POM_5V_IN")),
        (
            ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"],
            Err("[VDD_GPU_SOC, VDD_CPU_CV, VIN_SYS_5V0] }` in the board's"),
        ),
        (
            ["VIN", "A", "B"],
            Err(
                "[VIN, A, B] }`, with the rails that supply the board and are not supplied by one another, in",
            ),
        ),
        (["NC", "NC", ""], Err("found none with a name")),
    ] {
        let root = tempfile::tempdir().unwrap();
        hwmon(root.path(), 0, "1-0040", rails);
        match (find(&ina3221(&root, "", &[])), found) {
            (Ok(meter), Ok(total)) => assert_eq!(meter.total, total),
            (Err(message), Err(said)) => assert!(message.contains(said), "{message}"),
            (meter, found) => panic!("{:?} instead of {found:?}", meter.map(|meter| meter.total)),
        }
    }
    let root = tempfile::tempdir().unwrap();
    hwmon(root.path(), 0, "1-0040", ["GPU", "CPU", "SOC"]);
    hwmon(root.path(), 1, "1-0041", ["CV", "VDDRQ", "SYS5V"]);
    let message = error_of(&ina3221(&root, "", &[]));
    assert!(
        message.ends_with("write `total: { sum: [GPU, CPU, SOC, CV, VDDRQ, SYS5V] }` in the board's file"),
        "{message}"
    );
    let sum = find(&ina3221(&root, "GPU CPU SOC CV VDDRQ SYS5V", &[])).unwrap();
    assert_eq!((sum.total.as_str(), sum.totals), ("GPU + CPU + SOC + CV + VDDRQ + SYS5V", 6));
    let message = error_of(&ina3221(&root, "GPU VDD", &[]));
    assert!(message.contains("failed to find the INA3221 rail VDD below"), "{message}");
    let root = tempfile::tempdir().unwrap();
    hwmon(root.path(), 0, "1-0041", ["VIN_SYS_5V0", "NC", "VDDQ"]);
    assert!(error_of(&ina3221(&root, "VIN_SYS_5V0", &[])).contains("known to"));
}

#[test]
fn chips_with_one_channel_are_read_beside_those_with_three() {
    let root = tempfile::tempdir().unwrap();
    hwmon(root.path(), 0, "1-0040", ["VDD_GPU", "VDD_CPU", "NC"]);
    let single = |number: u32, address: &str, name: &str, files: &[(&str, &str)]| {
        let device = root.path().join("devices/i2c-2").join(address);
        fs::create_dir_all(&device).unwrap();
        let folder = format!("class/hwmon/hwmon{number}");
        for (file, text) in files.iter().chain(&[("name", name)]) {
            write(root.path(), &format!("{folder}/{file}"), &format!("{text}\n"));
        }
        std::os::unix::fs::symlink(&device, root.path().join(&folder).join("device")).unwrap();
    };
    // The first input is the shunt's voltage.
    let files =
        [("in0_input", "3"), ("in1_input", "19000"), ("curr1_input", "250"), ("power1_input", "4750000")];
    single(1, "2-0044", "ina238", &files);
    single(2, "2-0045", "ina226", &[("power1_input", "1234567"), ("label", "fan")]);
    single(3, "2-0046", "tmp102", &files);
    let meter = ina3221(&root, "board", &[("board", 0x44, 0)]);
    assert_eq!(names(&meter), ["board", "VDD_GPU", "VDD_CPU", "fan"]);
    let found = find(&meter).unwrap();
    assert_eq!(found.driver, "ina226 by hwmon, ina238 by hwmon, ina3221 by hwmon");
    let mut rails = found.rails;
    assert_eq!((rails[0].read(), rails[3].read()), (Some(250), Some(1235)));
    let readings: Vec<_> = rails.into_iter().map(Rail::into_readings).collect();
    assert_eq!((&readings[0].millivolts[..], &readings[0].milliwatts[..]), (&[19_000][..], &[][..]));
    assert!(readings[3].source.ends_with("hwmon2/power1_input"), "{}", readings[3].source);
    let message = error_of(&ina3221(&root, "board", &[("board", 0x44, 1)]));
    assert!(message.contains("ina238 by hwmon has only channel 0"), "{message}");
}

#[test]
fn all_rails_of_a_sum_are_read_as_often_and_one_that_hangs_ends_the_reading() {
    let root = tempfile::tempdir().unwrap();
    hwmon(root.path(), 0, "1-0040", ["A", "B", "C"]);
    let meter = ina3221(&root, "B A", &[]);
    let count = |readings: &PowerReadings, name: &str| {
        readings.rails.iter().find(|rail| rail.name == name).unwrap().begun_ns.len()
    };
    let readings = sampled(&meter, |all| count(all, "A") >= 3 && count(all, "C") < count(all, "A"));
    assert_eq!(count(&readings, "A"), count(&readings, "B"));
    let (totals, others) = readings.split().unwrap();
    assert_eq!((totals.len(), others.len(), readings.total.as_str()), (2, 1, "B + A"));
    let hanging = root.path().join("class/hwmon/hwmon0/curr2_input");
    let sampler = Sampler::start(&meter, &[]).unwrap();
    fs::remove_file(&hanging).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&hanging).status().unwrap().success());
    std::thread::sleep(Duration::from_millis(100));
    let message = sampler.finish().unwrap_err();
    assert!(message.contains("rail B does not answer"), "{message}");
}
