//! The Raspberry Pi's firmware: true clock, throttle bits, temperature, and on a Pi 5 the power of its rails. Two ways in: property
//! tags through `/dev/vcio`, text commands through `/dev/vcio_gencmd` (which newer kernels give to more users). Either will do.
//!
//! Tags and buffer layout: `include/soc/bcm2835/raspberrypi-firmware.h` of the kernel. Throttle bits are asked for with mask 0: a mask
//! would clear the sticky bits for everybody else.

use super::root::{Miss, Root};
use super::{Reading, Source, What};
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

/// The character device.
struct Device {
    file: std::fs::File,
    /// Only text commands pass.
    text_only: bool,
}

impl Device {
    fn open(root: &Root) -> Option<Device> {
        let open = |name: &str| std::fs::OpenOptions::new().read(true).open(root.at(name)).ok();
        let all = open("dev/vcio").map(|file| Device { file, text_only: false });
        all.or_else(|| Some(Device { file: open("dev/vcio_gencmd")?, text_only: true }))
    }

    fn call(&self, buffer: &mut Buffer) -> io::Result<()> {
        // SAFETY: the driver reads and writes at most the byte count in word 0, which is the buffer's own length; the buffer outlives
        // the call and is aligned to 16 bytes as the firmware wants it.
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
    fn of(tag: u32, values: &[u32]) -> Buffer {
        let mut words = [0; GENCMD_WORDS];
        let bytes = (values.len() * 4) as u32;
        words[..5].copy_from_slice(&[24 + bytes, 0, tag, bytes, 0]);
        words[5..5 + values.len()].copy_from_slice(values);
        Buffer(words)
    }
}

impl Mailbox for Device {
    fn property(&mut self, tag: u32, values: &mut [u32]) -> io::Result<()> {
        if self.text_only {
            return Err(io::ErrorKind::Unsupported.into());
        }
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
    /// Whether this firmware tells its rails (a Pi 5 does); asked once.
    has_pmic: Option<bool>,
}

impl Firmware {
    /// `None` on boards without it, or where neither device may be opened.
    pub fn open(root: &Root) -> Option<Firmware> {
        Some(Firmware::with(Box::new(Device::open(root)?)))
    }

    pub fn with(mailbox: Box<dyn Mailbox>) -> Firmware {
        Firmware { mailbox, has_pmic: None }
    }

    /// A property by its tag, or the number in the answer of a text command.
    fn ask(&mut self, tag: u32, id: Option<u32>, command: &str) -> Result<f64, Miss> {
        let mut values = match id {
            Some(id) => vec![id, 0],
            None => vec![0],
        };
        let by_tag = self.mailbox.property(tag, &mut values);
        if by_tag.is_ok() {
            return Ok(f64::from(values[values.len() - 1]) / if tag == TAG_TEMPERATURE { 1000.0 } else { 1.0 });
        }
        let answer = self.mailbox.command(command).map_err(|reason| Miss::Firmware { command: command.into(), reason })?;
        number_in(&answer).ok_or_else(|| Miss::Nonsense { path: "vcio".into(), text: answer })
    }

    fn pmic_w(&mut self) -> Option<f64> {
        if self.has_pmic == Some(false) {
            return None;
        }
        let rails = self.mailbox.command("pmic_read_adc").ok().and_then(|answer| rails_w(&answer));
        self.has_pmic = Some(rails.is_some() || self.has_pmic == Some(true));
        rails.map(|sum| PMIC_SLOPE * sum + PMIC_OFFSET_W)
    }
}

impl Source for Firmware {
    fn name(&self) -> String {
        "firmware".into()
    }

    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        let hertz = self.ask(TAG_CLOCK_MEASURED, Some(CLOCK_ARM), "measure_clock arm")?;
        let bits = self.ask(TAG_THROTTLED, None, "get_throttled")?;
        let celsius = self.ask(TAG_TEMPERATURE, Some(0), "measure_temp")?;
        let reading = |what, value, source: &str| Reading { what, value, source: source.into() };
        // Bits 16–19 only say that it happened at some time.
        let live = (bits as u64 & 0xffff) as f64;
        let mut readings = vec![
            reading(What::Measured("policy0".into()), hertz, "firmware: measure_clock arm"),
            reading(What::ThrottleBits, live, "firmware: get_throttled"),
            reading(What::UnderVoltage, f64::from(u8::from(bits as u64 & 1 == 1)), "firmware: get_throttled"),
            reading(What::Temperature("firmware".into()), celsius, "firmware: measure_temp"),
        ];
        if let Some(watts) = self.pmic_w() {
            readings.push(reading(What::Power("pmic".into()), watts, "firmware: pmic_read_adc"));
        }
        Ok(readings)
    }
}

/// The number after `=`: `frequency(48)=1500345728`, `throttled=0x50000`, `temp=48.3'C`.
fn number_in(answer: &str) -> Option<f64> {
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
        let read = |tags| Firmware::with(Box::new(Canned { tags })).read().unwrap().into_iter().map(|r| (r.what, r.value)).collect::<Vec<_>>();
        let (by_tag, by_text) = (read(true), read(false));
        assert_eq!(by_tag, by_text);
        assert!(by_tag.contains(&(What::Measured("policy0".into()), 2_256_000_000.0)));
        assert!(by_tag.contains(&(What::ThrottleBits, 10.0)), "sticky bits are left out");
    }

    #[test]
    fn board_power_comes_from_the_rails_by_the_fitted_line() {
        let watts = Firmware::with(Box::new(Canned { tags: true })).pmic_w().unwrap();
        assert!((watts - (1.1451 * 5.6 + 0.588)).abs() < 1e-9);
    }

    #[test]
    fn odd_answers_are_no_numbers() {
        for odd in ["", "error=1 error_msg=\"x\"", "temp=", "temp='C", "throttled=0xzz"] {
            assert!(number_in(odd).is_none() || odd.starts_with("error=1"), "{odd}");
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
