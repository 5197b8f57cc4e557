//! Sessions on their way to another process: what is written down of them lies in a file without a name, their sockets in pipes of
//! descriptors (`SCM_RIGHTS`). Whoever holds these few descriptors holds all of the sessions.
//!
//! A message of a pipe says the number of its first socket; socket and record of one session have the same number. A kernel
//! lets few messages wait in one pipe (`net.unix.max_dgram_qlen`), so there are as many pipes as it takes.
//!
//! What is opened is not trusted: it may come from another version, or be damaged. Then sockets are left without a record,
//! and end.

use std::fs::File;
use std::io::{self, BufReader, IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use crate::config::limits::{PARCEL_BYTES_MAX, RECORD_BYTES_MAX};
use crate::session::Seconds;
use crate::session::record::Record;
use crate::wire::fields::{self, Damaged, Fields};

/// The most descriptors that one message carries (`SCM_MAX_FD`).
const SOCKETS_PER_MESSAGE: usize = 253;
/// What a file of records begins with, and the number of their format: another number for every change of what is written.
const MAGIC: [u8; 12] = *b"pushd record";
const FORMAT: u32 = 1;
/// Magic, format, the clock, how many records there are.
const HEADER_BYTES: usize = MAGIC.len() + 4 + 4 + 8;

/// What stands before each record: how long it is.
const LENGTH_BYTES: usize = 4;

/// What is written down of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// It is a session's.
    Session(Record),
    /// It has no request in flight.
    Silent {
        /// The name of the server it came in on.
        server: String,
        /// What was read of its next request.
        early: Vec<u8>,
    },
}

impl Item {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Item::Session(record) => {
                out.push(0);
                record.write(out);
            }
            Item::Silent { server, early } => {
                out.push(if early.is_empty() { 1 } else { 2 });
                if !early.is_empty() {
                    fields::bytes(early, out);
                }
                out.extend_from_slice(server.as_bytes());
            }
        }
    }

    /// Reads what was written of a socket.
    ///
    /// # Errors
    /// It is something else.
    pub fn read(bytes: &[u8]) -> Result<Item, Damaged> {
        match bytes.split_first() {
            Some((0, record)) => Ok(Item::Session(Record::read(record)?)),
            Some((kind @ (1 | 2), rest)) => {
                let mut fields = Fields(rest);
                let early = if *kind == 2 { fields.bytes()?.to_vec() } else { Vec::new() };
                let server = std::str::from_utf8(fields.0).map_err(|_| Damaged("text that is no text"))?;
                Ok(Item::Silent { server: server.to_owned(), early })
            }
            _ => Err(Damaged("a choice that is none")),
        }
    }
}

/// Sessions packed for another process.
#[derive(Debug)]
pub struct Parcel {
    /// Their records.
    pub records: OwnedFd,
    /// Their sockets.
    pub pipes: Vec<Pipe>,
    /// How many they are.
    pub count: usize,
}

/// A pipe with sockets in it.
#[derive(Debug)]
pub struct Pipe {
    /// Its end to read from, which is given away.
    pub out: Option<OwnedFd>,
    input: OwnedFd,
}

impl Pipe {
    fn new() -> io::Result<Pipe> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (input, out) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok(Pipe { out: Some(out), input })
    }

    /// Whether anybody holds the other end, once ours is closed.
    pub fn is_kept(&mut self) -> bool {
        self.out = None;
        let mut ends = [PollFd::new(self.input.as_fd(), PollFlags::empty())];
        let polled = loop {
            match poll(&mut ends, PollTimeout::ZERO) {
                Err(Errno::EINTR) => {}
                polled => break polled,
            }
        };
        polled.is_ok() && ends[0].revents().is_some_and(|events| !events.contains(PollFlags::POLLHUP))
    }

    fn send(&self, first: u64, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_PER_MESSAGE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(sockets));
        sendmsg(&self.input, &[IoSlice::new(&first.to_le_bytes())], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

/// Packs a parcel.
pub struct Packer<'s> {
    records: File,
    pipes: Vec<Pipe>,
    clock: Seconds,
    /// Packed for good: so many, which end here in the file.
    count: u64,
    end: u64,
    /// Records and sockets of the message that is being filled.
    written: Vec<u8>,
    sockets: Vec<BorrowedFd<'s>>,
}

impl<'s> Packer<'s> {
    /// An empty parcel, closed at this second of the sessions' clock.
    pub fn new(clock: Seconds) -> io::Result<Packer<'s>> {
        let mut records = File::from(memfd_create("pushd-records", MFdFlags::MFD_CLOEXEC)?);
        records.write_all(&[0; HEADER_BYTES])?;
        let (written, sockets) = (Vec::new(), Vec::new());
        Ok(Packer { records, pipes: vec![Pipe::new()?], clock, count: 0, end: HEADER_BYTES as u64, written, sockets })
    }

    /// Adds a socket; whether there was room for it.
    ///
    /// # Errors
    /// The system refuses; then what was packed for good before stays packed, and nothing more can be.
    pub fn pack(&mut self, item: &Item, socket: BorrowedFd<'s>) -> io::Result<bool> {
        let start = self.written.len();
        self.written.extend_from_slice(&[0; LENGTH_BYTES]);
        item.write(&mut self.written);
        let length = self.written.len() - start - LENGTH_BYTES;
        if length > RECORD_BYTES_MAX || self.end + self.written.len() as u64 > PARCEL_BYTES_MAX {
            self.written.truncate(start);
            return Ok(false);
        }
        self.written[start..start + LENGTH_BYTES].copy_from_slice(&(length as u32).to_le_bytes());
        self.sockets.push(socket);
        if self.sockets.len() == SOCKETS_PER_MESSAGE {
            self.send()?;
        }
        Ok(true)
    }

    /// Sends what was added.
    fn send(&mut self) -> io::Result<()> {
        let (written, sockets) = (std::mem::take(&mut self.written), std::mem::take(&mut self.sockets));
        if sockets.is_empty() {
            return Ok(());
        }
        // What stands in the file behind the last record that counts is cut off in the end.
        self.records.seek(SeekFrom::Start(self.end))?;
        self.records.write_all(&written)?;
        let sent =
            self.pipes.last().map_or(Err(io::ErrorKind::WouldBlock.into()), |pipe| pipe.send(self.count, &sockets));
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let pipe = Pipe::new()?;
                pipe.send(self.count, &sockets)?;
                self.pipes.push(pipe);
            }
            sent => sent?,
        }
        self.count += sockets.len() as u64;
        self.end += written.len() as u64;
        Ok(())
    }

    /// Closes the parcel. What could not be sent is left out of it.
    ///
    /// # Errors
    /// The records cannot be finished: the parcel is none.
    pub fn close(mut self) -> io::Result<Parcel> {
        if let Err(error) = self.send() {
            log::warn!("not all sessions can be handed over: {error}");
        }
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&FORMAT.to_le_bytes());
        header.extend_from_slice(&self.clock.to_le_bytes());
        header.extend_from_slice(&self.count.to_le_bytes());
        self.records.set_len(self.end)?;
        self.records.seek(SeekFrom::Start(0))?;
        self.records.write_all(&header)?;
        Ok(Parcel { records: self.records.into(), pipes: self.pipes, count: self.count as usize })
    }
}

/// A parcel that is being opened: what it iterates over first, and then what is left of the sockets.
#[derive(Debug)]
pub struct Opened {
    records: Option<BufReader<File>>,
    left: u64,
    bytes_left: u64,
    next: usize,
    /// When it was closed, by the sessions' clock.
    pub clock: Seconds,
    sockets: Vec<Option<OwnedFd>>,
    buffer: Vec<u8>,
}

impl Opened {
    /// Takes the sockets out of their pipes. Why the records cannot be read comes beside it, if so: then all sockets are left.
    pub fn new(records: Option<OwnedFd>, pipes: Vec<OwnedFd>) -> (Opened, Option<String>) {
        let mut opened = Opened {
            records: None,
            left: 0,
            bytes_left: 0,
            next: 0,
            clock: 0,
            sockets: Vec::new(),
            buffer: Vec::new(),
        };
        let mut why = match records.map(|records| opened.header(File::from(records))) {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(error.to_string()),
            None => Some("it is not there".to_owned()),
        };
        for pipe in pipes {
            if let Err(error) = opened.take_sockets(pipe) {
                why.get_or_insert(error.to_string());
            }
        }
        (opened, why)
    }

    fn header(&mut self, mut file: File) -> io::Result<()> {
        let mut header = [0; HEADER_BYTES];
        // The other process wrote to the same open file: its place is shared.
        file.seek(SeekFrom::Start(0))?;
        file.read_exact(&mut header)?;
        let (magic, numbers) = header.split_at(MAGIC.len());
        let number = |at: usize| u32::from_le_bytes([numbers[at], numbers[at + 1], numbers[at + 2], numbers[at + 3]]);
        if magic != MAGIC || number(0) != FORMAT {
            return Err(io::Error::other("it is written in a format of another version"));
        }
        self.clock = number(4);
        self.left = u64::from(number(8)) | u64::from(number(12)) << 32;
        self.bytes_left = file.metadata()?.len().saturating_sub(HEADER_BYTES as u64);
        if self.left > self.bytes_left / LENGTH_BYTES as u64 {
            return Err(io::Error::other("it announces more records than it holds"));
        }
        self.records = Some(BufReader::with_capacity(1 << 20, file));
        Ok(())
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
                    self.place(number, socket);
                    number = number.saturating_add(1);
                    sockets += 1;
                }
            }
            if got.flags.contains(rustix::net::ReturnFlags::CTRUNC) {
                return Err(io::Error::other("the limit of open files leaves no room for all sockets"));
            }
            if got.bytes == 0 && sockets == 0 {
                return Ok(());
            }
        }
    }

    /// Holds a socket by its number; one whose number is beyond all records has none, and ends here.
    fn place(&mut self, number: usize, socket: OwnedFd) {
        if self.records.is_none() {
            self.sockets.push(Some(socket));
        } else if (number as u64) < self.left {
            // Places are bounded by the records, and those by what there is of them.
            if self.sockets.len() <= number {
                self.sockets.resize_with(number + 1, || None);
            }
            self.sockets[number] = Some(socket);
        }
    }

    /// What is left without a record.
    pub fn left(&mut self) -> impl Iterator<Item = OwnedFd> {
        self.records = None;
        std::mem::take(&mut self.sockets).into_iter().flatten()
    }
}

/// The sockets in order, each with what was written of it; why the rest cannot be read comes last.
impl Iterator for Opened {
    type Item = Result<(Item, OwnedFd), String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let records = self.records.as_mut().filter(|_| self.left > 0)?;
            let read = read_record(records, &mut self.bytes_left, &mut self.buffer);
            let read = read.and_then(|()| Item::read(&self.buffer).map_err(|Damaged(why)| why.to_owned()));
            let item = match read {
                Ok(item) => item,
                Err(why) => {
                    self.records = None;
                    return Some(Err(why));
                }
            };
            self.left -= 1;
            let socket = self.sockets.get_mut(self.next).and_then(Option::take);
            self.next += 1;
            if let Some(socket) = socket {
                return Some(Ok((item, socket)));
            }
        }
    }
}

fn read_record(records: &mut impl Read, bytes_left: &mut u64, buffer: &mut Vec<u8>) -> Result<(), String> {
    let mut length = [0; LENGTH_BYTES];
    records.read_exact(&mut length).map_err(|error| error.to_string())?;
    let length = u32::from_le_bytes(length);
    *bytes_left = bytes_left.saturating_sub(LENGTH_BYTES as u64);
    if u64::from(length) > *bytes_left || length as usize > RECORD_BYTES_MAX {
        return Err("a record that is longer than what is there".to_owned());
    }
    *bytes_left -= u64::from(length);
    buffer.clear();
    buffer.resize(length as usize, 0);
    records.read_exact(buffer).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::session::Phase;
    use crate::session::record::Kept;
    use crate::wire::Dialect;

    fn session(number: usize) -> Record {
        Record {
            server: "main".into(),
            path: "/ws".into(),
            hub: "push".into(),
            dialect: Dialect::Rfc6455,
            inflates: false,
            phase: Phase::Open,
            heard: 7,
            due: 32,
            pinged: Some(0),
            channels: vec![format!("channel {number}").into(), "all".into()].into(),
            to: "all".into(),
            said: vec![0x81, 0x85, 0, 0, 0, 0, b'h'],
            waiting: vec![
                Kept::Notice(b"\x81\x013"[..].into(), 3),
                Kept::Gap(2),
                Kept::Frame(b"\x81\x02hi"[..].into(), Some(1), 6),
            ],
            written: 2,
        }
    }

    fn item(number: usize) -> Item {
        match number % 10 {
            9 => Item::Silent { server: "main".into(), early: Vec::new() },
            8 => Item::Silent { server: "main".into(), early: b"GET /\xff".to_vec() },
            _ => Item::Session(session(number)),
        }
    }

    /// So many packed, some of which are no sessions; and the other ends of their sockets.
    fn packed(count: usize) -> (Parcel, Vec<UnixStream>) {
        let (ours, theirs): (Vec<_>, Vec<_>) = (0..count).map(|_| UnixStream::pair().unwrap()).unzip();
        let mut packer = Packer::new(41).unwrap();
        for (number, socket) in theirs.iter().enumerate() {
            assert!(packer.pack(&item(number), socket.as_fd()).unwrap());
        }
        let parcel = packer.close().unwrap();
        assert_eq!(parcel.count, count);
        (parcel, ours)
    }

    /// Opens what was packed, its pipes the other way round.
    fn open(parcel: Parcel) -> (Opened, Option<String>) {
        let Parcel { records, mut pipes, .. } = parcel;
        let opened = Opened::new(Some(records), pipes.iter_mut().rev().filter_map(|pipe| pipe.out.take()).collect());
        assert!(pipes.iter_mut().all(|pipe| !pipe.is_kept()), "all are closed");
        opened
    }

    #[test]
    fn every_socket_arrives_with_its_record() {
        // More than one message holds, and the last of them not full.
        let count = 2 * SOCKETS_PER_MESSAGE + 5;
        let (parcel, mut ours) = packed(count);
        let (mut opened, why) = open(parcel);
        assert_eq!((why, opened.clock), (None, 41));
        for (number, ours) in ours.iter_mut().enumerate() {
            let (opened, socket) = opened.next().unwrap().unwrap();
            assert_eq!(opened, item(number));
            UnixStream::from(socket).write_all(b"it is you").unwrap();
            let mut read = [0; 9];
            ours.read_exact(&mut read).unwrap();
        }
        assert!(opened.next().is_none());
        assert_eq!(opened.left().count(), 0);
    }

    #[test]
    fn a_pipe_is_full_and_another_is_taken() {
        let (parcel, _ours) = packed(2);
        let mut first = parcel.pipes;
        let pipe = first.pop().unwrap();
        let socket = UnixStream::pair().unwrap().0;
        let more = (2..100_000).take_while(|number| pipe.send(*number, &[socket.as_fd()]).is_ok()).count();
        assert!(more > 1 && more < 90_000, "{more}");
        let mut packer = Packer::new(0).unwrap();
        packer.pipes = vec![pipe];
        packer.pack(&item(9), socket.as_fd()).unwrap();
        assert_eq!(packer.close().unwrap().pipes.len(), 2);
    }

    #[test]
    fn damage_leaves_sockets_without_a_record() {
        let cases: [(u64, &[u8], usize); 4] = [
            // Another magic, another format, more records than there are, and a record that says nothing.
            (0, b"P", 0),
            (12, &[2], 0),
            (20, &[255, 255, 255], 0),
            (HEADER_BYTES as u64 + LENGTH_BYTES as u64, &[9], 0),
        ];
        for (at, bytes, read) in cases {
            let (parcel, _ours) = packed(30);
            let mut records = File::from(parcel.records.try_clone().unwrap());
            records.seek(SeekFrom::Start(at)).and_then(|_| records.write_all(bytes)).unwrap();
            let (mut opened, why) = open(parcel);
            let (items, errors): (Vec<_>, Vec<_>) = opened.by_ref().partition(Result::is_ok);
            assert_eq!((items.len(), errors.len() + usize::from(why.is_some())), (read, 1), "{why:?}");
            assert_eq!(opened.left().count(), 30 - read);
        }
        let (parcel, _ours) = packed(3);
        File::from(parcel.records.try_clone().unwrap()).set_len(HEADER_BYTES as u64 + 200).unwrap();
        let (mut opened, _) = open(parcel);
        let read = opened.by_ref().filter(Result::is_ok).count();
        assert_eq!(read + opened.left().count(), 3);
        let (mut opened, why) = Opened::new(None, Vec::new());
        assert!(why.is_some() && opened.next().is_none());
    }
}
