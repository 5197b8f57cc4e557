//! Upgrades that keep the connections: sessions of a process of another version are taken up, and no client notices it.
//!
//! `tests/handover/formatN` has the data that a process with format N left, with one session of each kind, byte for byte. Only the
//! sockets are new. The state and the records are those that the process passed to the service manager. `slow`, `noticed` and
//! `leaving` are the bytes that clients of these kinds received afterwards. [`record`] writes such a folder for the present format.

mod common;
#[path = "handover/kinds.rs"]
mod kinds;

use std::fs::{self, File};
use std::io::{IoSlice, Read, Seek, SeekFrom, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use common::PLAIN;
use common::http::{Answer, publish, request};
use common::service::Service;
use common::wire::Wire;
use common::ws::Ws;
use kinds::{Client, KINDS, Kind, TAIL};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};

/// The format that is written now.
const PRESENT: u32 = 2;
/// The number of parcels with one session of each kind: as a process with this many shards leaves them.
const PARCELS: usize = 72;

fn folder(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/handover/format{format}"))
}

/// Records the data that the present binary leaves: `cargo test --test handover_formats -- --ignored`.
#[test]
#[ignore = "writes tests/handover/format2 again"]
fn record() {
    let folder = folder(PRESENT);
    fs::create_dir_all(&folder).unwrap();
    let mut service = Service::new(&kinds::config_before(), 512);
    let narrow = kinds::narrow();
    let narrow_address = narrow.local_addr().unwrap();
    service.sockets = vec![("narrow".to_owned(), narrow.into())];
    fs::write(service.path().join("tail"), TAIL.0).unwrap();
    service.start();
    let open = |kind: &Kind| kind.open(service.address(), narrow_address);
    let mut clients: Vec<Client> = KINDS.iter().map(open).collect();
    let mut tail = File::options().append(true).open(service.path().join("tail")).unwrap();
    let mut subscriber = Ws::open(service.address(), "/plain?channel=tail");
    tail.write_all(TAIL.1.as_bytes()).unwrap();
    subscriber.expect_text("0 whole");
    subscriber.close();
    kinds::settle(&service, &mut clients);
    service.hand_over();
    for (name, kept_as) in [("state", "pushd-handover-state"), ("records", "pushd-handover-records-0")] {
        let mut bytes = Vec::new();
        let mut kept = service.kept_as(kept_as).remove(0);
        kept.seek(SeekFrom::Start(0)).and_then(|_| kept.read_to_end(&mut bytes)).unwrap();
        fs::write(folder.join(name), bytes).unwrap();
    }
    // First read the bytes that this process wrote; the bytes after them come from the next process.
    let before: Vec<Vec<u8>> = clients.iter_mut().map(|client| client.wire.take_what_is_there()).collect();
    service.start();
    for (client, before) in clients.iter_mut().zip(before) {
        let Some(name) = client.kind.file() else { continue };
        let told = client.told();
        println!("{name}: {} bytes before, {} after", before.len(), told.len());
        assert!(!told.starts_with(b"\x81"), "a frame is partly written");
        fs::write(folder.join(name), told).unwrap();
    }
}

#[test]
fn a_thousand_sessions_in_format_1_continue() {
    taken_up(1);
}

#[test]
fn a_thousand_sessions_in_format_2_continue() {
    taken_up(2);
}

#[test]
fn unknown_descriptors_of_a_later_version_are_released() {
    let mut service = Service::started(PLAIN);
    let mut client = Ws::open(service.address(), "/ws");
    service.hand_over();
    for name in ["pushd-handover-presence-0", "pushd-handover-listener-9", "pushd-handover-sockets-x"] {
        service.keep(name, memory(b"an unknown kind"));
    }
    service.start();
    assert_eq!(publish(service.address(), "/publish/all", "on"), 1);
    client.expect_text("on");
    assert_eq!(service.kept(), [""; 0]);
}

fn taken_up(format: u32) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let folder = folder(format);
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    let mut service = Service::new(&kinds::config(), 512);
    service.sockets = vec![("narrow".to_owned(), kinds::narrow().into())];
    fs::write(service.path().join("tail"), [TAIL.0, TAIL.1].concat()).unwrap();
    let (tcp, unix) = (TcpListener::bind("127.0.0.1:0").unwrap(), UnixListener::bind(service.path().join("unix")));
    let address = tcp.local_addr().unwrap();
    service.keep("pushd-handover-state", memory(&read("state")));
    service.keep("pushd-handover-listener-0", tcp.into());
    service.keep("pushd-handover-listener-2", unix.unwrap().into());
    service.keep("pushd-handover-feed-0", File::open(service.path().join("tail")).unwrap().into());
    let mut clients = Vec::new();
    for parcel in 0..PARCELS {
        service.keep(&format!("pushd-handover-records-{parcel}"), memory(&read("records")));
        let (ours, theirs): (Vec<Wire>, Vec<OwnedFd>) = KINDS.iter().map(|_| Wire::pair()).unzip();
        clients.extend(KINDS.iter().zip(ours).map(|(kind, wire)| Client { kind: *kind, wire }));
        service.keep(&format!("pushd-handover-sockets-{parcel}"), pipe(&theirs));
    }
    assert!(clients.len() >= 1000);
    service.start();
    assert_eq!(service.address(), address, "the listener is the one that was left");
    service.logged_times(&format!("Took up {} sessions", clients.len() - PARCELS), 1);
    clients.iter_mut().for_each(|client| client.go_on(read));
    // All subscribers still receive publications, and one of them can publish.
    let mut hearing: Vec<&mut Client> = clients.iter_mut().filter(|client| client.kind.hears()).collect();
    let news = "news ".repeat(20);
    assert_eq!(publish(address, "/publish/all", &news), hearing.len() as u64);
    hearing.iter_mut().for_each(|client| client.expect(&news));
    hearing.retain(|client| client.kind == Kind::Two);
    hearing[0].say("from one of them");
    hearing.iter_mut().for_each(|client| client.expect("from one of them"));
    // The tail continues in the middle of its line, and with the next number.
    let mut subscriber = Ws::open(address, "/plain?channel=tail");
    let mut tail = File::options().append(true).open(service.path().join("tail")).unwrap();
    tail.write_all(b" more\n").unwrap();
    subscriber.expect_text("1 half more");
    let mut unix = Wire::connect_unix(&service.path().join("unix"));
    unix.send(&request(address, "GET", "/metrics", &[], b""));
    assert_eq!(Answer::read(&mut unix).status, 200);
    for words in ["cannot be", "could not be"] {
        assert!(!service.log().contains(words), "{}", service.log());
    }
    assert_eq!(service.kept(), [""; 0]);
}

fn memory(bytes: &[u8]) -> OwnedFd {
    let mut file = File::from(memfd_create("left", MFdFlags::MFD_CLOEXEC).unwrap());
    file.write_all(bytes).unwrap();
    file.into()
}

/// The reading end of a pipe that contains these sockets, from number 0 on.
fn pipe(sockets: &[OwnedFd]) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (input, out) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
    let numbers: Vec<_> = sockets.iter().map(|socket| socket.as_fd().as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let first = 0u64.to_le_bytes();
    sendmsg::<()>(input.as_raw_fd(), &[IoSlice::new(&first)], &rights, MsgFlags::empty(), None).unwrap();
    out
}
