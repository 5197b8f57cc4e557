//! A parcel: the sessions and idle connections of a shard, packed for another process. The records are in a memory file, the
//! sockets in pipes that carry descriptors (`SCM_RIGHTS`). A process that has the descriptors of the file and the pipes has all the
//! sessions.
//!
//! Each message in a pipe begins with the number of its first socket. A socket and its record have the same number. The kernel
//! limits how many messages a pipe holds (`net.unix.max_dgram_qlen`), so there are as many pipes as necessary.

mod opened;
mod present;

use std::fs::File;
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::config::limits::{LIST_VALUES_MAX, PARCEL_BYTES_MAX, RECORD_BYTES_MAX};
use crate::session::Seconds;
use crate::session::record::Record;
use crate::wire::fields::{Damaged, Fields};
use crate::wire::tagged::{self, Field, tagged};
pub use opened::{Opened, clock};
pub use present::Present;

/// The maximum number of descriptors in one message (`SCM_MAX_FD`).
const SOCKETS_PER_MESSAGE: usize = 253;
/// A file of records begins with this and the number of its format. The header and the items follow, each after its length.
const MAGIC: [u8; 12] = *b"pushd record";
const FORMAT: u32 = 2;

/// The size of this length.
const LENGTH_BYTES: usize = 4;

/// The record of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// It belongs to a session.
    Session(Box<Record>),
    /// It is a connection without a request in flight.
    Idle {
        /// NAME of the server that it connected to.
        server: String,
        /// The bytes that were read of its next request.
        early: Vec<u8>,
    },
}

impl Item {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Item::Session(record) => tagged::put(1, &**record, out),
            Item::Idle { server, early } => {
                tagged::put(2, server, out);
                tagged::put(3, early, out);
            }
        }
    }

    /// Reads the record of a socket.
    ///
    /// # Errors
    /// The bytes are not such a record.
    pub fn read(bytes: &[u8]) -> Result<Item, Damaged> {
        let (mut fields, mut item) = (Fields(bytes), None);
        let mut early_bytes = Vec::new();
        while let Some(field) = fields.tagged()? {
            match field {
                (1, session) => item = Some(Item::Session(Box::new(Record::read(session)?))),
                (2, server) => item = Some(Item::Idle { server: String::read(server)?, early: Vec::new() }),
                (3, early) => early_bytes = Field::read(early)?,
                _ => {}
            }
        }
        if let Some(Item::Idle { early, .. }) = &mut item {
            *early = early_bytes;
        }
        item.ok_or(Damaged("this version does not know its kind"))
    }
}

/// The header of a file of records.
#[derive(Debug, Default)]
struct Header {
    /// When the parcel was begun, by the clock of the sessions.
    clock: Seconds,
    /// The members of the channels that the shard owns.
    present: Vec<Present>,
}

tagged!(Header { 1 clock, 2 present });

/// Packed sessions and connections.
#[derive(Debug)]
pub struct Parcel {
    /// Their records.
    pub records: OwnedFd,
    /// Their sockets.
    pub pipes: Vec<Pipe>,
    /// How many there are.
    pub count: usize,
}

/// A pipe that contains sockets.
#[derive(Debug)]
pub struct Pipe {
    /// The end that the other process reads from.
    pub out: Option<OwnedFd>,
    input: OwnedFd,
}

impl Pipe {
    fn new() -> io::Result<Pipe> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (input, out) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok(Pipe { out: Some(out), input })
    }

    /// Closes our descriptor of the reading end. Returns whether another process has one.
    pub fn close_and_check_holder(&mut self) -> bool {
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
    /// How many sockets are sent.
    count: u64,
    /// Where the records of these end in the file.
    end: u64,
    /// Records and sockets of the message that is being filled.
    written: Vec<u8>,
    sockets: Vec<BorrowedFd<'s>>,
}

impl<'s> Packer<'s> {
    /// A parcel without sockets, begun at this time of the clock of the sessions, with the members of channels.
    pub fn new(clock: Seconds, present: Vec<Present>) -> io::Result<Packer<'s>> {
        let mut records = File::from(memfd_create("pushd-records", MFdFlags::MFD_CLOEXEC)?);
        let (mut begin, mut header) = (MAGIC.to_vec(), Vec::new());
        Header { clock, present }.write(&mut header);
        begin.extend_from_slice(&FORMAT.to_le_bytes());
        begin.extend_from_slice(&(header.len() as u32).to_le_bytes());
        begin.append(&mut header);
        records.write_all(&begin)?;
        let (written, sockets) = (Vec::new(), Vec::new());
        Ok(Packer { records, pipes: vec![Pipe::new()?], count: 0, end: begin.len() as u64, written, sockets })
    }

    /// Adds a socket. Returns whether its record was small enough.
    ///
    /// # Errors
    /// A system call failed. What was sent before stays packed, and nothing more can be added.
    pub fn pack(&mut self, item: &Item, socket: BorrowedFd<'s>) -> io::Result<bool> {
        if let Item::Session(record) = item
            && record.waiting.len() > LIST_VALUES_MAX
        {
            return Ok(false);
        }
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

    /// Sends what was added since the last message.
    fn send(&mut self) -> io::Result<()> {
        let (written, sockets) = (std::mem::take(&mut self.written), std::mem::take(&mut self.sockets));
        if sockets.is_empty() {
            return Ok(());
        }
        // The records of a message that could not be sent are overwritten here, or truncated in `close`.
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

    /// Completes the parcel, without what could not be sent.
    ///
    /// # Errors
    /// The file cannot be completed: there is no parcel.
    pub fn close(mut self) -> io::Result<Parcel> {
        if let Err(error) = self.send() {
            log::warn!("not all sessions can be handed over: {error}");
        }
        self.records.set_len(self.end)?;
        Ok(Parcel { records: self.records.into(), pipes: self.pipes, count: self.count as usize })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::session::Phase;
    use crate::session::record::Kept;
    use crate::wire::Framing;

    fn session(number: usize) -> Record {
        Record {
            server: "main".into(),
            path: "/ws".into(),
            hub: "push".into(),
            framing: Framing::Rfc6455,
            inflates: false,
            phase: Phase::Open,
            heard: 7,
            due: 32,
            pinged: Some(0),
            channels: vec![format!("channel {number}").into(), "all".into()].into(),
            to: "all".into(),
            undecoded: vec![0x81, 0x85, 0, 0, 0, 0, b'h'],
            waiting: vec![
                Kept { bytes: b"\x81\x013"[..].into(), dropped: 3, ..Kept::default() },
                Kept { dropped: 2, ..Kept::default() },
                Kept { bytes: b"\x81\x02hi"[..].into(), channel: Some(1), since: 6, dropped: 0 },
            ],
            written: 2,
            identity: "ann".into(),
            behind: Vec::new(),
            patterns: vec!["news/*".into()].into(),
            answer_due: 0,
            messages_max: 0,
            wished_channels: 1,
            wished_patterns: 0,
            owes_position: true,
            token_expires: 99,
            token_key: 1 << 60,
            token_allows: vec!["news/*".into()],
            token_limits: true,
        }
    }

    fn item(number: usize) -> Item {
        match number % 10 {
            9 => Item::Idle { server: "main".into(), early: Vec::new() },
            8 => Item::Idle { server: "main".into(), early: b"GET /\xff".to_vec() },
            _ => Item::Session(session(number).into()),
        }
    }

    /// A parcel with `count` sessions and connections, and the other ends of their sockets.
    fn packed(count: usize) -> (Parcel, Vec<UnixStream>) {
        let (ours, theirs): (Vec<_>, Vec<_>) = (0..count).map(|_| UnixStream::pair().unwrap()).unzip();
        let mut packer = Packer::new(41, vec![]).unwrap();
        for (number, socket) in theirs.iter().enumerate() {
            assert!(packer.pack(&item(number), socket.as_fd()).unwrap());
        }
        let parcel = packer.close().unwrap();
        assert_eq!(parcel.count, count);
        (parcel, ours)
    }

    /// Opens a parcel, with its pipes in reverse order.
    fn open(parcel: Parcel) -> (Opened, Option<String>) {
        let Parcel { records, mut pipes, .. } = parcel;
        let opened = Opened::new(Some(records), pipes.iter_mut().rev().filter_map(|pipe| pipe.out.take()).collect());
        assert!(pipes.iter_mut().all(|pipe| !pipe.close_and_check_holder()), "all are closed");
        opened
    }

    #[test]
    fn every_socket_arrives_with_its_record() {
        // Several messages, the last one not full.
        let count = 2 * SOCKETS_PER_MESSAGE + 5;
        let (parcel, mut ours) = packed(count);
        assert_eq!(clock(&parcel.records), 41);
        let (mut opened, why) = open(parcel);
        assert_eq!(why, None);
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
    fn the_members_of_channels_arrive_with_the_sockets() {
        let present = || Present { hub: "push".into(), channel: "all".into(), ids: vec!["ann".into(), "bo".into()] };
        let parcel = Packer::new(7, vec![present()]).unwrap().close().unwrap();
        let (mut opened, why) = open(parcel);
        assert_eq!(why, None);
        assert_eq!(opened.take_present(), [present()]);
        assert!(opened.next().is_none());
    }

    #[test]
    fn a_full_pipe_is_followed_by_another() {
        let (parcel, _ours) = packed(2);
        let mut first = parcel.pipes;
        let pipe = first.pop().unwrap();
        let socket = UnixStream::pair().unwrap().0;
        let more = (2..100_000).take_while(|number| pipe.send(*number, &[socket.as_fd()]).is_ok()).count();
        assert!(more > 1 && more < 90_000, "{more}");
        let mut packer = Packer::new(0, vec![]).unwrap();
        packer.pipes = vec![pipe];
        packer.pack(&item(9), socket.as_fd()).unwrap();
        assert_eq!(packer.close().unwrap().pipes.len(), 2);
    }

    #[test]
    fn sockets_whose_records_are_damaged_are_left() {
        // Where the header and the first item begin.
        let header = (MAGIC.len() + 4) as u64;
        let first = header + LENGTH_BYTES as u64 + 3;
        let cases: [(u64, &[u8], usize); 5] = [
            // A wrong magic, another format, a header and a record that are longer than the file, and an unknown item.
            (0, b"P", 0),
            (12, &[3], 0),
            (header, &[0xff, 0xff, 0xff], 0),
            (first, &[0xff, 0xff, 0xff], 0),
            (first + LENGTH_BYTES as u64, &[9], 29),
        ];
        for (at, bytes, read) in cases {
            let (parcel, _ours) = packed(30);
            let mut records = File::from(parcel.records.try_clone().unwrap());
            records.seek(SeekFrom::Start(at)).and_then(|_| records.write_all(bytes)).unwrap();
            let (mut opened, why) = open(parcel);
            let (items, errors): (Vec<_>, Vec<_>) = opened.by_ref().partition(Result::is_ok);
            assert_eq!((items.len(), errors.len() + usize::from(why.is_some())), (read, 1), "at {at}: {why:?}");
            assert_eq!(opened.left().count(), 30 - read);
        }
        let (parcel, _ours) = packed(3);
        File::from(parcel.records.try_clone().unwrap()).set_len(first + 200).unwrap();
        let (mut opened, _) = open(parcel);
        let read = opened.by_ref().filter(Result::is_ok).count();
        assert_eq!(read + opened.left().count(), 3);
        let (mut opened, why) = Opened::new(None, Vec::new());
        assert!(why.is_some() && opened.next().is_none());
    }

    #[test]
    fn a_session_with_too_many_waiting_frames_is_not_packed() {
        let mut record = session(0);
        record.waiting = vec![Kept { dropped: 1, ..Kept::default() }; LIST_VALUES_MAX];
        record.written = 0;
        let socket = UnixStream::pair().unwrap().0;
        let mut packer = Packer::new(0, vec![]).unwrap();
        for is_packed in [true, false] {
            assert_eq!(packer.pack(&Item::Session(record.clone().into()), socket.as_fd()).unwrap(), is_packed);
            record.waiting.push(Kept { dropped: 1, ..Kept::default() });
        }
        let (mut opened, _) = open(packer.close().unwrap());
        assert!(opened.next().unwrap().is_ok());
    }
}
