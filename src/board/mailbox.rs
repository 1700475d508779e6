//! The Raspberry Pi's firmware: true clock, throttle bits, temperature, and on a Pi 5 the power of its rails. Two ways in: property
//! tags through `/dev/vcio`, text commands through `/dev/vcio_gencmd` (which newer kernels give to more users). Either will do.
//!
//! Tags and buffer layout: `include/soc/bcm2835/raspberrypi-firmware.h` of the kernel. Throttle bits are asked for with mask 0: a mask
//! would clear the sticky bits for everybody else.

use super::root::{Miss, Root};
use super::{Reading, Sensor, What, those_read};
use std::io;
use std::os::fd::AsRawFd;

const TAG_TEMPERATURE: u32 = 0x0003_0006;
const TAG_THROTTLED: u32 = 0x0003_0046;
const TAG_CLOCK_MEASURED: u32 = 0x0003_0047;
const TAG_GENCMD: u32 = 0x0003_0080;
const CLOCK_ARM: u32 = 3;
/// `_IOWR(100, 0, char *)`.
#[cfg(target_pointer_width = "64")]
const PROPERTY: libc::Ioctl = 0xC008_6400_u32 as libc::Ioctl;
#[cfg(target_pointer_width = "32")]
const PROPERTY: libc::Ioctl = 0xC004_6400_u32 as libc::Ioctl;
/// Buffer of a text command; its answer starts at word 6.
const GENCMD_WORDS: usize = 1024 + 7;
/// Sum of the rails to the board's input, fitted to a meter by others: what hangs on 5 V directly is in no rail.
const PMIC_SLOPE: f64 = 1.1451;
const PMIC_OFFSET_W: f64 = 0.588;

/// One way to ask the firmware.
pub trait Mailbox: Send {
    /// Asks one property; `values` is both request and answer.
    fn property(&mut self, tag: u32, values: &mut [u32]) -> io::Result<()>;
    /// Asks by a text command, `measure_clock arm` for one.
    fn command(&mut self, text: &str) -> io::Result<String>;
}

/// A character device of the firmware.
struct Device {
    file: std::fs::File,
}

/// The devices that could be opened: one that passes everything, one that passes text commands only. Either may be refused (kernels from
/// mid-2026 on have both, and give only the second to users).
struct Devices {
    all: Option<Device>,
    text: Option<Device>,
}

impl Devices {
    fn open(root: &Root) -> Option<Devices> {
        let open = |name: &str| std::fs::OpenOptions::new().read(true).open(root.at(name)).ok().map(|file| Device { file });
        let devices = Devices { all: open("dev/vcio"), text: open("dev/vcio_gencmd") };
        (devices.all.is_some() || devices.text.is_some()).then_some(devices)
    }
}

impl Mailbox for Devices {
    fn property(&mut self, tag: u32, values: &mut [u32]) -> io::Result<()> {
        self.all.as_mut().ok_or(io::ErrorKind::Unsupported)?.property(tag, values)
    }

    fn command(&mut self, text: &str) -> io::Result<String> {
        let mut last = io::ErrorKind::Unsupported.into();
        for device in [&mut self.text, &mut self.all].into_iter().flatten() {
            match device.command(text) {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// The firmware's answers as a captured tree holds them: a file a command, in the folder `firmware`. Read anew each time, so that whoever
/// plays the board can change them.
struct Recorded(Root);

impl Recorded {
    fn file(command: &str) -> String {
        format!("firmware/{}", command.replace(' ', "_"))
    }
}

impl Mailbox for Recorded {
    fn property(&mut self, _: u32, _: &mut [u32]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn command(&mut self, text: &str) -> io::Result<String> {
        std::fs::read_to_string(self.0.at(Recorded::file(text)))
    }
}

/// What is asked of a firmware for a captured tree: what [`Firmware`] reads, and what tells parts and versions apart.
pub const CAPTURED: [&str; 7] =
    ["measure_clock arm", "get_throttled", "measure_temp", "pmic_read_adc", "measure_volts core", "version", "bootloader_version"];

/// The answers to [`CAPTURED`] as files of a tree; none where there is no such firmware.
pub fn answers(root: &Root) -> Vec<(String, String)> {
    let Some(mut firmware) = Firmware::open(root) else { return Vec::new() };
    CAPTURED.iter().filter_map(|c| Some((Recorded::file(c), firmware.mailbox.command(c).ok()?))).collect()
}

impl Device {
    fn call(&self, buffer: &mut Buffer) -> io::Result<()> {
        // SAFETY: the driver reads and writes as many bytes as word 0 says, which `Buffer::of` has checked to be within the buffer; the
        // buffer outlives the call and is aligned to 16 bytes as the firmware wants it.
        let status = unsafe { libc::ioctl(self.file.as_raw_fd(), PROPERTY, buffer.0.as_mut_ptr()) };
        match (status, buffer.0[1]) {
            (s, _) if s < 0 => Err(io::Error::last_os_error()),
            (_, 0x8000_0000) => Ok(()),
            (_, code) => Err(io::Error::other(format!("answer code {code:#x}"))),
        }
    }
}

/// Words of one message: total bytes, code, tag, bytes of values, request, values, end.
#[repr(C, align(16))]
struct Buffer([u32; GENCMD_WORDS]);

impl Buffer {
    /// Panics where the message is longer than a buffer: the messages are ours.
    fn of(tag: u32, values: &[u32]) -> Buffer {
        assert!(values.len() + 6 <= GENCMD_WORDS, "{} words of values", values.len());
        let mut words = [0; GENCMD_WORDS];
        let bytes = (values.len() * 4) as u32;
        words[..5].copy_from_slice(&[24 + bytes, 0, tag, bytes, 0]);
        words[5..5 + values.len()].copy_from_slice(values);
        Buffer(words)
    }
}

impl Mailbox for Device {
    fn property(&mut self, tag: u32, values: &mut [u32]) -> io::Result<()> {
        let mut buffer = Buffer::of(tag, values);
        self.call(&mut buffer)?;
        values.copy_from_slice(&buffer.0[5..5 + values.len()]);
        Ok(())
    }

    fn command(&mut self, text: &str) -> io::Result<String> {
        let mut values = [0u32; GENCMD_WORDS - 6];
        // Word 0 of the values is the error code, the string follows.
        for (i, byte) in text.bytes().take(4 * (values.len() - 2)).enumerate() {
            values[1 + i / 4] |= u32::from(byte) << (8 * (i % 4));
        }
        let mut buffer = Buffer::of(TAG_GENCMD, &values);
        self.call(&mut buffer)?;
        if buffer.0[5] != 0 {
            return Err(io::Error::other(format!("error {}", buffer.0[5])));
        }
        let bytes: Vec<u8> = buffer.0[6..].iter().flat_map(|w| w.to_le_bytes()).take_while(|&b| b != 0).collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The firmware as a source of readings.
pub struct Firmware {
    mailbox: Box<dyn Mailbox>,
    rails: Rails,
}

/// Whether this firmware tells its rails (a Pi 5 does). An answer decides, not a refusal: old firmware refuses what comes too soon after
/// the question before.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rails {
    /// Refused so many times in a row.
    Unknown(u32),
    Told,
    None,
}

/// Refusals in a row that count as an answer.
const REFUSALS_MAX: u32 = 5;

impl Firmware {
    /// `None` on boards without it, or where neither device may be opened.
    pub fn open(root: &Root) -> Option<Firmware> {
        if root.is_machine() {
            return Some(Firmware::with(Box::new(Devices::open(root)?)));
        }
        root.at("firmware").is_dir().then(|| Firmware::with(Box::new(Recorded(root.clone()))))
    }

    pub fn with(mailbox: Box<dyn Mailbox>) -> Firmware {
        Firmware { mailbox, rails: Rails::Unknown(0) }
    }

    /// A property by its tag, or the number in the answer of a text command.
    fn ask(&mut self, tag: u32, id: Option<u32>, command: &str) -> Result<f64, Miss> {
        let mut values = match id {
            Some(id) => vec![id, 0],
            None => vec![0],
        };
        if self.mailbox.property(tag, &mut values).is_ok() {
            let value = values[values.len() - 1];
            // A temperature below 0 °C is a negative number of millidegrees.
            return Ok(if tag == TAG_TEMPERATURE { f64::from(value as i32) / 1000.0 } else { f64::from(value) });
        }
        let answer = self.mailbox.command(command).map_err(|reason| Miss::Firmware { command: command.into(), reason })?;
        number_in(&answer).ok_or_else(|| Miss::Nonsense { path: command.into(), text: answer })
    }

    fn pmic_w(&mut self) -> Option<f64> {
        if self.rails == Rails::None {
            return None;
        }
        let asked = self.mailbox.command("pmic_read_adc").map(|answer| rails_w(&answer));
        self.rails = match (self.rails, &asked) {
            (Rails::Told, _) | (_, Ok(Some(_))) => Rails::Told,
            (Rails::Unknown(refused), Err(_)) if refused + 1 < REFUSALS_MAX => Rails::Unknown(refused + 1),
            _ => Rails::None,
        };
        asked.ok()?.map(|sum| PMIC_SLOPE * sum + PMIC_OFFSET_W)
    }
}

impl Sensor for Firmware {
    fn name(&self) -> String {
        "firmware".into()
    }

    /// What the firmware answers; one question that it refuses (an old one lacks a command) takes nothing from the others.
    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        let plausible = |range: std::ops::Range<f64>, command: &str, asked: Result<f64, Miss>| {
            let value = asked?;
            let nonsense = || Miss::Nonsense { path: command.into(), text: value.to_string() };
            if range.contains(&value) { Ok(value) } else { Err(nonsense()) }
        };
        let reading = |what, value, command: &str| Reading::new(what, value, format!("firmware: {command}"));
        let hertz = plausible(1e7..1e10, "measure_clock arm", self.ask(TAG_CLOCK_MEASURED, Some(CLOCK_ARM), "measure_clock arm"));
        // Bits 16–19 only say that it happened at some time.
        let bits = self.ask(TAG_THROTTLED, None, "get_throttled").map(|bits| (bits as u64 & 0xffff) as f64);
        let celsius = plausible(-25.0..125.0, "measure_temp", self.ask(TAG_TEMPERATURE, Some(0), "measure_temp"));
        let answers = [
            hertz.map(|v| reading(What::Measured("firmware".into()), v, "measure_clock arm")),
            bits.map(|v| reading(What::ThrottleBits, v, "get_throttled")),
            celsius.map(|v| reading(What::Temperature("firmware".into()), v, "measure_temp")),
        ];
        let mut readings = those_read(answers)?;
        if let Some(watts) = self.pmic_w() {
            readings.push(reading(What::Power("pmic".into()), watts, "pmic_read_adc"));
        }
        Ok(readings)
    }

    fn is_meter(&self) -> bool {
        self.rails != Rails::None
    }
}

/// The number after `=`: `frequency(48)=1500345728`, `throttled=0x50000`, `temp=48.3'C`.
fn number_in(answer: &str) -> Option<f64> {
    if answer.starts_with("error") {
        return None;
    }
    let value = answer.split_once('=')?.1.trim();
    if let Some(hex) = value.strip_prefix("0x") {
        return u32::from_str_radix(hex, 16).ok().map(f64::from);
    }
    let end = value.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-').unwrap_or(value.len());
    value[..end].parse().ok()
}

/// Σ V·A over rails that tell both: lines like `VDD_CORE_A current(7)=10.88A` and `VDD_CORE_V volt(15)=0.90V`.
fn rails_w(answer: &str) -> Option<f64> {
    let mut amperes = std::collections::BTreeMap::new();
    let mut volts = std::collections::BTreeMap::new();
    for line in answer.lines() {
        let Some((name, value)) = line.trim().split_once(' ').and_then(|(name, rest)| Some((name, number_in(rest)?))) else { continue };
        if let Some(rail) = name.strip_suffix("_A") {
            amperes.insert(rail.to_owned(), value);
        } else if let Some(rail) = name.strip_suffix("_V") {
            volts.insert(rail.to_owned(), value);
        }
    }
    let rails: Vec<f64> = amperes.iter().filter_map(|(rail, a)| Some(a * volts.get(rail)?)).collect();
    (!rails.is_empty()).then(|| rails.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers as logs show them; `tags` whether property tags pass.
    struct Canned {
        tags: bool,
    }

    impl Mailbox for Canned {
        fn property(&mut self, tag: u32, values: &mut [u32]) -> io::Result<()> {
            if !self.tags {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            let answer = match tag {
                TAG_CLOCK_MEASURED => 2_256_000_000,
                TAG_THROTTLED => 0x000a_000a,
                TAG_TEMPERATURE => 82_900,
                _ => return Err(io::ErrorKind::Unsupported.into()),
            };
            if let Some(last) = values.last_mut() {
                *last = answer;
            }
            Ok(())
        }
        fn command(&mut self, text: &str) -> io::Result<String> {
            Ok(match text {
                "measure_clock arm" => "frequency(0)=2256000000",
                "get_throttled" => "throttled=0xa000a",
                "measure_temp" => "temp=82.9'C",
                "pmic_read_adc" => " VDD_CORE_A current(7)=5.00A\n DDR_VDD2_A current(3)=1.0A\n VDD_CORE_V volt(15)=0.90V\n DDR_VDD2_V volt(11)=1.1V\n EXT5V_V volt(24)=5.1V",
                _ => return Err(io::ErrorKind::InvalidInput.into()),
            }
            .into())
        }
    }

    #[test]
    fn tags_and_text_commands_tell_the_same() {
        let read =
            |tags| Firmware::with(Box::new(Canned { tags })).read().unwrap().into_iter().map(|r| (r.what, r.value)).collect::<Vec<_>>();
        let (by_tag, by_text) = (read(true), read(false));
        assert_eq!(by_tag, by_text);
        assert!(by_tag.contains(&(What::Measured("firmware".into()), 2_256_000_000.0)));
        assert!(by_tag.contains(&(What::ThrottleBits, 10.0)), "sticky bits are left out");
    }

    /// Refuses one command, and all tags.
    struct Old(&'static str);

    impl Mailbox for Old {
        fn property(&mut self, _: u32, _: &mut [u32]) -> io::Result<()> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
        fn command(&mut self, text: &str) -> io::Result<String> {
            if text == self.0 || self.0 == "all" {
                Ok("error=1 error_msg=\"Command not registered\"".into())
            } else {
                Canned { tags: false }.command(text)
            }
        }
    }

    #[test]
    fn a_question_that_an_old_firmware_refuses_takes_nothing_from_the_others() {
        let read = |old| Firmware::with(Box::new(Old(old))).read();
        let whats: Vec<What> = read("measure_clock arm").unwrap().into_iter().map(|r| r.what).collect();
        assert!(whats.contains(&What::ThrottleBits) && !whats.contains(&What::Measured("firmware".into())), "{whats:?}");
        assert!(matches!(read("all"), Err(Miss::Nonsense { .. })));
    }

    #[test]
    fn a_captured_firmware_answers_from_its_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("firmware")).unwrap();
        for (file, text) in [
            ("measure_clock_arm", "frequency(0)=1500345728\n"),
            ("get_throttled", "throttled=0x50000\n"),
            ("measure_temp", "temp=48.3'C\n"),
        ] {
            std::fs::write(dir.path().join("firmware").join(file), text).unwrap();
        }
        let root = Root::new(dir.path());
        let told: Vec<(What, f64)> = Firmware::open(&root).unwrap().read().unwrap().into_iter().map(|r| (r.what, r.value)).collect();
        let want =
            [(What::Measured("firmware".into()), 1_500_345_728.0), (What::ThrottleBits, 0.0), (What::Temperature("firmware".into()), 48.3)];
        assert_eq!(told, want);
        assert_eq!(answers(&root).len(), 3);
    }

    #[test]
    fn board_power_comes_from_the_rails_by_the_fitted_line() {
        let watts = Firmware::with(Box::new(Canned { tags: true })).pmic_w().unwrap();
        assert!((watts - (1.1451 * 5.6 + 0.588)).abs() < 1e-9);
    }

    /// Refuses the first questions for its rails, then answers.
    struct Refusing(u32, &'static str);

    impl Mailbox for Refusing {
        fn property(&mut self, _: u32, _: &mut [u32]) -> io::Result<()> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
        fn command(&mut self, text: &str) -> io::Result<String> {
            if text == "pmic_read_adc" && self.0 > 0 {
                self.0 -= 1;
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            if self.1.is_empty() { Canned { tags: false }.command(text) } else { Ok(self.1.into()) }
        }
    }

    #[test]
    fn a_refusal_does_not_switch_the_meter_off_and_an_answer_without_rails_does() {
        let asked = |refusals, answer| {
            let mut firmware = Firmware::with(Box::new(Refusing(refusals, answer)));
            (0..8).filter(|_| firmware.pmic_w().is_some()).count()
        };
        assert_eq!(asked(1, ""), 7);
        assert_eq!(asked(REFUSALS_MAX - 1, ""), 4);
        assert_eq!(asked(REFUSALS_MAX, ""), 0, "nobody asks for ever");
        let mut old = Firmware::with(Box::new(Refusing(0, "error=1 error_msg=\"Command not registered\"")));
        assert!(old.is_meter() && old.pmic_w().is_none() && !old.is_meter());
    }

    #[test]
    fn odd_answers_are_no_numbers() {
        for odd in ["", "error=1 error_msg=\"x\"", "temp=", "temp='C", "throttled=0xzz"] {
            assert!(number_in(odd).is_none(), "{odd}");
        }
        assert_eq!(rails_w("no such command"), None);
    }

    #[test]
    fn a_message_is_laid_out_as_the_firmware_wants_it() {
        let buffer = Buffer::of(TAG_TEMPERATURE, &[0, 0]);
        assert_eq!(buffer.0[..8], [32, 0, TAG_TEMPERATURE, 8, 0, 0, 0, 0]);
        assert_eq!(align_of::<Buffer>(), 16);
    }
}
