//! Idle clients: they answer a close, and nothing else.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::common::ws::{CLOSE, close_payload, frame, handshake};

/// How many sessions are opened at once.
const AT_ONCE: usize = 64;

/// Opens a session that offers compression, on a socket that does not block.
pub fn open(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = begin(address, path);
    finish(&mut stream);
    stream
}

fn begin(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let extensions = "Sec-WebSocket-Extensions: permessage-deflate";
    stream.write_all(&handshake(address, path, &[extensions])).unwrap();
    stream
}

fn finish(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream.set_nonblocking(true).unwrap();
}

/// A crowd of idle clients.
pub struct Crowd {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Crowd {
    /// Opens this number of sessions.
    pub fn open(address: SocketAddr, path: &str, count: usize) -> Crowd {
        let mut streams = Vec::with_capacity(count);
        while streams.len() < count {
            let mut begun: Vec<_> = (0..AT_ONCE.min(count - streams.len())).map(|_| begin(address, path)).collect();
            begun.iter_mut().for_each(finish);
            streams.append(&mut begun);
        }
        let ended = Arc::<AtomicBool>::default();
        let stop = ended.clone();
        let thread = std::thread::spawn(move || answer(&streams, &stop));
        Crowd { ended, thread }
    }

    /// Ends all of them.
    pub fn end(self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
    }
}

fn answer(streams: &[TcpStream], stop: &AtomicBool) {
    let set = Epoll::new(EpollCreateFlags::empty()).unwrap();
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
    for (number, stream) in streams.iter().enumerate() {
        set.add(stream.as_fd(), EpollEvent::new(flags, number as u64)).unwrap();
    }
    let mut events = vec![EpollEvent::empty(); 512];
    let mut bytes = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        let count = set.wait(&mut events, EpollTimeout::from(50u8)).unwrap_or(0);
        for event in &events[..count] {
            let mut stream = &streams[event.data() as usize];
            while let Ok(read @ 1..) = stream.read(&mut bytes) {
                if bytes[..read].contains(&CLOSE) {
                    let _ = stream.write(&frame(CLOSE, &close_payload(1000, "")));
                }
            }
        }
    }
}
