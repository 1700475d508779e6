//! Huge pages for a file's weights. Decode reads gigabytes a second through the page tables, and with pages of 4 KiB a core spends a good
//! part of that time on looking them up: one thread of a virtual machine (Xeon of the Emerald Rapids class) summed a mapped file at
//! 10 GB/s through small pages, at 15 to 17 GB/s through pages of 2 MiB.
//!
//! A file comes into the page cache in huge pages when it is first read through a mapping that asks for them, on file systems that have
//! large folios (XFS, ext4 from Linux 6.16 on; seen with ext4 on 6.18): there that is how it comes after a boot. What was in the cache before, because it was
//! just downloaded or read by something else, stays in the pages it is in, until it is read [anew](super::Gguf::gather).

use std::fs;
use std::ops::Range;

/// Bytes of a huge page, where the system has any.
pub fn page_bytes() -> Option<usize> {
    let bytes = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size").ok()?;
    bytes.trim().parse().ok().filter(|n| *n > 0)
}

/// How many bytes of the mappings within `addresses` this process reads through huge pages. What it never read is not among them.
pub fn mapped(addresses: &Range<*const u8>) -> usize {
    fs::read_to_string("/proc/self/smaps").map_or(0, |text| count(&text, addresses.start.addr()..addresses.end.addr()))
}

/// The same, told by the text of smaps.
fn count(smaps: &str, addresses: Range<usize>) -> usize {
    let (mut inside, mut bytes) = (false, 0);
    for line in smaps.lines() {
        // A mapping's first line begins with its address, all that follow with a capital letter.
        if !line.starts_with(|c: char| c.is_ascii_uppercase()) {
            let (start, end) = line.split(' ').next().and_then(range).unwrap_or_default();
            inside = start < addresses.end && addresses.start < end;
        } else if inside && let Some(size) = line.strip_prefix("FilePmdMapped:") {
            bytes += size.split_ascii_whitespace().next().and_then(|n| n.parse::<usize>().ok()).unwrap_or(0) << 10;
        }
    }
    bytes
}

/// `7f12a000-7f12c000`: the first word of a mapping's paragraph.
fn range(word: &str) -> Option<(usize, usize)> {
    let (start, end) = word.split_once('-')?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_mappings_asked_for_are_counted() {
        let smaps = "\
7f0000000000-7f0000400000 r--s 00000000 fe:00 77  /m.gguf
Size:               4096 kB
FilePmdMapped:      2048 kB
VmFlags: rd mr me ms hg
7f0000400000-7f0000600000 r--s 00400000 fe:00 77  /m.gguf
FilePmdMapped:      1024 kB
7f0000800000-7f0000a00000 r--s 00000000 fe:00 78  /other
FilePmdMapped:       512 kB
";
        assert_eq!(count(smaps, 0x7f0000000000..0x7f0000500000), 3 << 20);
        assert_eq!(count(smaps, 0x7f0000600000..0x7f0000800000), 0);
        assert_eq!(count(smaps, 0x7f0000900000..0x7f0000900001), 512 << 10);
    }
}
