//! Boards as trees of files, built in code: what each kernel shows, for tests and for a live fake. Values are those of a board at rest.

use std::io;
use std::path::Path;

/// What makes a tree.
#[derive(Debug)]
pub struct Fake {
    pub model: &'static str,
    pub compatible: &'static [&'static str],
    /// Name of the policy, its cpus, capacity, clock steps in kHz.
    pub policies: &'static [(&'static str, &'static [u32], u32, &'static [u32])],
    pub driver: &'static str,
    pub zones: &'static [FakeZone],
    /// Name of a hwmon chip and its files.
    pub hwmon: &'static [(&'static str, &'static [(&'static str, &'static str)])],
    pub cooling: &'static [(&'static str, u32)],
}

/// Type, reading in m°C, policy, trips (type, m°C), types of bound cooling devices.
#[derive(Debug)]
pub struct FakeZone {
    pub kind: &'static str,
    pub temp: &'static str,
    pub policy: &'static str,
    pub trips: &'static [(&'static str, u32)],
    pub bound: &'static [&'static str],
}

impl Fake {
    pub fn cpus(&self) -> usize {
        self.policies.iter().map(|p| p.1.len()).sum()
    }
}

const fn zone(kind: &'static str, temp: &'static str) -> FakeZone {
    FakeZone { kind, temp, policy: "step_wise", trips: &[], bound: &[] }
}

pub const PI5: Fake = Fake {
    model: "Raspberry Pi 5 Model B Rev 1.0",
    compatible: &["raspberrypi,5-model-b", "brcm,bcm2712"],
    policies: &[(
        "policy0",
        &[0, 1, 2, 3],
        1024,
        &[1500000, 1600000, 1700000, 1800000, 1900000, 2000000, 2100000, 2200000, 2300000, 2400000],
    )],
    driver: "cpufreq-dt",
    zones: &[FakeZone {
        kind: "cpu-thermal",
        temp: "52900",
        policy: "step_wise",
        trips: &[("critical", 110000), ("active", 50000), ("active", 60000), ("active", 67500), ("active", 75000)],
        bound: &["pwm-fan"],
    }],
    hwmon: &[
        ("cpu_thermal", &[("temp1_input", "52900")]),
        ("pwmfan", &[("pwm1", "75"), ("fan1_input", "2900")]),
        ("rpi_volt", &[("in0_lcrit_alarm", "0")]),
    ],
    cooling: &[("pwm-fan", 4)],
};

pub const PI4: Fake = Fake {
    model: "Raspberry Pi 4 Model B Rev 1.4",
    compatible: &["raspberrypi,4-model-b", "brcm,bcm2711"],
    policies: &[(
        "policy0",
        &[0, 1, 2, 3],
        1024,
        &[600000, 700000, 800000, 900000, 1000000, 1100000, 1200000, 1300000, 1400000, 1500000, 1600000, 1700000, 1800000],
    )],
    driver: "cpufreq-dt",
    zones: &[FakeZone { kind: "cpu-thermal", temp: "48212", policy: "step_wise", trips: &[("critical", 110000)], bound: &[] }],
    hwmon: &[("cpu_thermal", &[("temp1_input", "48212")]), ("rpi_volt", &[("in0_lcrit_alarm", "0")])],
    cooling: &[],
};

pub const ZERO_2_W: Fake = Fake {
    model: "Raspberry Pi Zero 2 W Rev 1.0",
    compatible: &["raspberrypi,model-zero-2-w", "brcm,bcm2837"],
    policies: &[("policy0", &[0, 1, 2, 3], 1024, &[600000, 700000, 800000, 900000, 1000000])],
    driver: "cpufreq-dt",
    zones: &[zone("cpu-thermal", "46160")],
    hwmon: &[("rpi_volt", &[("in0_lcrit_alarm", "0")])],
    cooling: &[],
};

pub const RK3588_VENDOR: Fake = Fake {
    model: "Radxa ROCK 5B",
    compatible: &["radxa,rock-5b", "rockchip,rk3588"],
    policies: &[
        ("policy0", &[0, 1, 2, 3], 530, &[408000, 600000, 816000, 1008000, 1200000, 1416000, 1608000, 1800000]),
        (
            "policy4",
            &[4, 5],
            1024,
            &[408000, 600000, 816000, 1008000, 1200000, 1416000, 1608000, 1800000, 2016000, 2208000, 2304000, 2352000],
        ),
        (
            "policy6",
            &[6, 7],
            1024,
            &[408000, 600000, 816000, 1008000, 1200000, 1416000, 1608000, 1800000, 2016000, 2208000, 2304000, 2352000],
        ),
    ],
    driver: "cpufreq-dt",
    zones: &[
        FakeZone {
            kind: "soc-thermal",
            temp: "47153",
            policy: "power_allocator",
            trips: &[("passive", 75000), ("passive", 85000), ("critical", 115000)],
            bound: &["cpufreq-cpu0", "cpufreq-cpu4", "cpufreq-cpu6"],
        },
        zone("bigcore0-thermal", "47153"),
        zone("bigcore1-thermal", "47153"),
        zone("littlecore-thermal", "47153"),
        zone("center-thermal", "46230"),
        zone("gpu-thermal", "46230"),
        zone("npu-thermal", "46230"),
    ],
    hwmon: &[],
    cooling: &[("cpufreq-cpu0", 7), ("cpufreq-cpu4", 11), ("cpufreq-cpu6", 11)],
};

pub const H618: Fake = Fake {
    model: "OrangePi Zero3",
    compatible: &["xunlong,orangepi-zero3", "allwinner,sun50i-h618"],
    policies: &[("policy0", &[0, 1, 2, 3], 1024, &[480000, 600000, 792000, 1008000, 1200000, 1320000, 1416000, 1512000])],
    driver: "cpufreq-dt",
    zones: &[
        FakeZone {
            kind: "cpu-thermal",
            temp: "45100",
            policy: "power_allocator",
            trips: &[("passive", 60000), ("passive", 70000), ("critical", 110000)],
            bound: &["cpufreq-cpu0"],
        },
        zone("gpu-thermal", "44800"),
        zone("ve-thermal", "44600"),
        zone("ddr-thermal", "44900"),
    ],
    hwmon: &[],
    cooling: &[("cpufreq-cpu0", 7)],
};

/// Its cv zones belong to a part that is off: reading them fails, or hangs.
pub const JETSON: Fake = Fake {
    model: "NVIDIA Jetson Orin Nano Developer Kit",
    compatible: &["nvidia,p3768-0000+p3767-0005", "nvidia,p3767-0005", "nvidia,tegra234"],
    policies: &[("policy0", &[0, 1, 2, 3], 1024, &[]), ("policy4", &[4, 5], 1024, &[])],
    driver: "tegra194",
    zones: &[
        FakeZone {
            kind: "cpu-thermal",
            temp: "49031",
            policy: "step_wise",
            trips: &[("passive", 99000), ("critical", 104500)],
            bound: &["cpufreq-cpu0"],
        },
        zone("gpu-thermal", "47500"),
        zone("cv0-thermal", ""),
        zone("cv1-thermal", ""),
        zone("cv2-thermal", "-256000"),
        zone("soc0-thermal", "48000"),
        zone("tj-thermal", "49031"),
    ],
    hwmon: &[(
        "ina3221",
        &[
            ("in1_label", "VDD_IN"),
            ("in1_input", "5000"),
            ("curr1_input", "1500"),
            ("in2_label", "VDD_CPU_GPU_CV"),
            ("in2_input", "5000"),
            ("curr2_input", "400"),
            ("in3_label", "VDD_SOC"),
            ("in3_input", "5000"),
            ("curr3_input", "500"),
        ],
    )],
    cooling: &[("cpufreq-cpu0", 10)],
};

pub const ALL: [&Fake; 6] = [&PI5, &PI4, &ZERO_2_W, &RK3588_VENDOR, &H618, &JETSON];

/// A Pi 5 in a folder of its own, for tests.
#[cfg(test)]
pub fn pi5() -> (tempfile::TempDir, super::root::Root) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    build(dir.path(), &PI5).expect("the folder can be written");
    let root = super::root::Root::new(dir.path());
    (dir, root)
}

/// Writes the tree below `at`.
pub fn build(at: &Path, board: &Fake) -> io::Result<()> {
    let put = |path: &str, text: &str| -> io::Result<()> {
        let path = at.join(path);
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(path, text)
    };
    put("proc/device-tree/model", &format!("{}\0", board.model))?;
    put("proc/device-tree/compatible", &board.compatible.iter().map(|c| format!("{c}\0")).collect::<String>())?;
    put("proc/meminfo", "MemTotal:        8132212 kB\n")?;
    put("proc/sys/kernel/osrelease", "6.12.47\n")?;
    for kind in ["cpu", "memory", "io"] {
        put(
            &format!("proc/pressure/{kind}"),
            "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
        )?;
    }
    let cpu = "sys/devices/system/cpu";
    put(&format!("{cpu}/online"), &format!("0-{}\n", board.cpus() - 1))?;
    for (cluster, (policy, cpus, capacity, steps)) in board.policies.iter().enumerate() {
        for n in *cpus {
            put(&format!("{cpu}/cpu{n}/cpu_capacity"), &format!("{capacity}\n"))?;
            put(&format!("{cpu}/cpu{n}/topology/cluster_id"), &format!("{cluster}\n"))?;
            put(&format!("{cpu}/cpu{n}/topology/core_id"), &format!("{n}\n"))?;
        }
        let (low, high) = (steps.first().unwrap_or(&115200), steps.last().unwrap_or(&1510400));
        let list: String = steps.iter().map(|f| format!("{f} ")).collect();
        let cpus: String = cpus.iter().map(|n| format!("{n} ")).collect();
        for (file, text) in [
            ("affected_cpus", cpus),
            ("scaling_driver", board.driver.into()),
            ("scaling_governor", "ondemand".into()),
            ("scaling_cur_freq", low.to_string()),
            ("scaling_min_freq", low.to_string()),
            ("scaling_max_freq", high.to_string()),
            ("cpuinfo_min_freq", low.to_string()),
            ("cpuinfo_max_freq", high.to_string()),
        ] {
            put(&format!("{cpu}/cpufreq/{policy}/{file}"), &format!("{}\n", text.trim()))?;
        }
        if !steps.is_empty() {
            put(&format!("{cpu}/cpufreq/{policy}/scaling_available_frequencies"), &format!("{list}\n"))?;
        }
    }
    for (n, zone) in board.zones.iter().enumerate() {
        let dir = format!("sys/class/thermal/thermal_zone{n}");
        for (file, text) in [("type", zone.kind), ("temp", zone.temp), ("policy", zone.policy), ("mode", "enabled")] {
            put(&format!("{dir}/{file}"), &format!("{text}\n"))?;
        }
        for (i, (kind, mc)) in zone.trips.iter().enumerate() {
            put(&format!("{dir}/trip_point_{i}_type"), &format!("{kind}\n"))?;
            put(&format!("{dir}/trip_point_{i}_temp"), &format!("{mc}\n"))?;
        }
        for (i, kind) in zone.bound.iter().enumerate() {
            put(&format!("{dir}/cdev{i}/type"), &format!("{kind}\n"))?;
        }
    }
    for (n, (kind, max)) in board.cooling.iter().enumerate() {
        let dir = format!("sys/class/thermal/cooling_device{n}");
        for (file, text) in [("type", kind.to_string()), ("cur_state", "0".into()), ("max_state", max.to_string())] {
            put(&format!("{dir}/{file}"), &format!("{text}\n"))?;
        }
    }
    for (n, (name, files)) in board.hwmon.iter().enumerate() {
        put(&format!("sys/class/hwmon/hwmon{n}/name"), &format!("{name}\n"))?;
        for (file, text) in *files {
            put(&format!("sys/class/hwmon/hwmon{n}/{file}"), &format!("{text}\n"))?;
        }
    }
    Ok(())
}
