//! Opens a parcel of another process: each socket with its record, in the present format or the one before.
//!
//! The data is not trusted: it may be of another version, or damaged. Sockets without a readable record are left, and the caller
//! ends them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, IoSliceMut, Read, Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};

use super::{FORMAT, Header, Item, LENGTH_BYTES, MAGIC, Present, SOCKETS_PER_MESSAGE};
use crate::config::limits::RECORD_BYTES_MAX;
use crate::session::Seconds;
use crate::wire::fields::Damaged;
use crate::wire::format1;
use crate::wire::tagged::Field;

/// The records of a parcel that are not read yet.
#[derive(Debug)]
struct Records {
    file: BufReader<File>,
    bytes_left: u64,
    format: u32,
    clock: Seconds,
    present: Vec<Present>,
}

impl Records {
    fn new(mut file: File) -> io::Result<Records> {
        // The other process wrote to the same open file description, so the offset is shared.
        file.seek(SeekFrom::Start(0))?;
        let bytes_left = file.metadata()?.len();
        let file = BufReader::with_capacity(1 << 20, file);
        let mut records = Records { file, bytes_left, format: 0, clock: 0, present: Vec::new() };
        let is_ours = records.array()? == MAGIC;
        records.format = u32::from_le_bytes(records.array()?);
        records.clock = match (is_ours, records.format) {
            (true, FORMAT) => {
                let mut header = Vec::new();
                records.next(&mut header)?;
                let header = Header::read(&header).map_err(|damaged| io::Error::other(damaged.to_string()))?;
                records.present = header.present;
                header.clock
            }
            (true, format1::FORMAT) => {
                let clock = records.array()?;
                // The number of records. It is not needed: records are read until the end of the file.
                records.array::<8>()?;
                u32::from_le_bytes(clock)
            }
            _ => return Err(io::Error::other("it is written in a format of another version")),
        };
        Ok(records)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        self.bytes_left = self.bytes_left.saturating_sub(N as u64);
        Ok(bytes)
    }

    /// Reads a length, and that many bytes.
    fn next(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let length = u32::from_le_bytes(self.array::<LENGTH_BYTES>()?);
        if u64::from(length) > self.bytes_left || length as usize > RECORD_BYTES_MAX {
            return Err(io::Error::other("a record is longer than the rest of the file"));
        }
        buffer.clear();
        buffer.resize(length as usize, 0);
        self.file.read_exact(buffer)?;
        self.bytes_left -= u64::from(length);
        Ok(())
    }

    fn item(&self, bytes: &[u8]) -> Result<Item, Damaged> {
        match self.format {
            format1::FORMAT => Item::read(&format1::item(bytes)?),
            _ => Item::read(bytes),
        }
    }
}

/// When a parcel was packed, by the clock of the sessions. 0: this cannot be read. The parcel can still be opened afterwards.
pub fn clock(records: &OwnedFd) -> Seconds {
    let records = records.try_clone().and_then(|records| Records::new(File::from(records)));
    records.map_or(0, |records| records.clock)
}

/// An opened parcel. Iterate over it first, then over the sockets that are [left](Opened::left).
#[derive(Debug)]
pub struct Opened {
    records: Option<Records>,
    next: usize,
    sockets: BTreeMap<usize, OwnedFd>,
    buffer: Vec<u8>,
}

impl Opened {
    /// Takes the sockets out of their pipes. If something cannot be read, the reason is returned, too. If this is the file of
    /// records, all sockets are left.
    pub fn new(records: Option<OwnedFd>, pipes: Vec<OwnedFd>) -> (Opened, Option<String>) {
        let records = records.map(|records| Records::new(File::from(records)));
        let (records, mut why) = match records {
            Some(Ok(records)) => (Some(records), None),
            Some(Err(error)) => (None, Some(error.to_string())),
            None => (None, Some("it is missing".to_owned())),
        };
        let mut opened = Opened { records, next: 0, sockets: BTreeMap::new(), buffer: Vec::new() };
        for pipe in pipes {
            if let Err(error) = opened.take_sockets(pipe) {
                why.get_or_insert(error.to_string());
            }
        }
        (opened, why)
    }

    fn take_sockets(&mut self, pipe: OwnedFd) -> io::Result<()> {
        loop {
            let mut first = [0; 8];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_PER_MESSAGE))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            let got = match recvmsg(&pipe, &mut [IoSliceMut::new(&mut first)], &mut control, flags) {
                Ok(got) => got,
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let mut number = usize::try_from(u64::from_le_bytes(first)).unwrap_or(usize::MAX);
            let mut sockets = 0;
            for message in control.drain() {
                let RecvAncillaryMessage::ScmRights(descriptors) = message else { continue };
                for socket in descriptors {
                    self.sockets.insert(number, socket);
                    number = number.saturating_add(1);
                    sockets += 1;
                }
            }
            if got.flags.contains(ReturnFlags::CTRUNC) {
                return Err(io::Error::other("the limit of open files is too low for all sockets"));
            }
            if got.bytes == 0 && sockets == 0 {
                return Ok(());
            }
        }
    }

    /// Takes out the members of channels of which the other process has told.
    pub fn take_present(&mut self) -> Vec<Present> {
        self.records.as_mut().map(|records| std::mem::take(&mut records.present)).unwrap_or_default()
    }

    /// The sockets without a readable record.
    pub fn left(&mut self) -> impl Iterator<Item = OwnedFd> {
        self.records = None;
        std::mem::take(&mut self.sockets).into_values()
    }
}

/// Each record with its socket. If a record cannot be read, the reason is returned, and its socket is left.
impl Iterator for Opened {
    type Item = Result<(Item, OwnedFd), String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let records = self.records.as_mut().filter(|records| records.bytes_left > 0)?;
            if let Err(error) = records.next(&mut self.buffer) {
                // The start of the next record is not known.
                self.records = None;
                return Some(Err(error.to_string()));
            }
            let number = self.next;
            self.next += 1;
            match records.item(&self.buffer) {
                Ok(item) => match self.sockets.remove(&number) {
                    Some(socket) => return Some(Ok((item, socket))),
                    None => continue,
                },
                Err(Damaged(why)) => return Some(Err(why.to_owned())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use nix::sys::memfd::{MFdFlags, memfd_create};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn damaged_records_of_format_1_are_errors(at: prop::sample::Index, bits: u8, cut: prop::sample::Index) {
            let mut bytes = include_bytes!("../../../tests/handover/format1/records").to_vec();
            let index = at.index(bytes.len());
            bytes[index] ^= bits;
            for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
                let mut file = File::from(memfd_create("left", MFdFlags::MFD_CLOEXEC).unwrap());
                file.write_all(bytes).unwrap();
                let Ok(mut records) = Records::new(file) else { continue };
                let mut buffer = Vec::new();
                while records.bytes_left > 0 && records.next(&mut buffer).is_ok() {
                    std::hint::black_box(records.item(&buffer).is_ok());
                }
            }
        }
    }
}
