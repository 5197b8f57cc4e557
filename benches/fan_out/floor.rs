//! The floor: a minimal broadcaster with one thread and one epoll set, and nothing else that a server needs.
//!
//! It has no limits, routes or pings, and does not handle slow clients, so its cost is the kernel's. Each message of a
//! client is sent to all clients, in order of arrival. There is one `send` for each message and client, or with
//! coalescing one for each read and client.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tungstenite::handshake::derive_accept_key;

const LISTENER: u64 = u64::MAX;

struct Client {
    stream: TcpStream,
    open: bool,
    /// It connected to /echo, and receives only its own messages.
    echo: bool,
    /// Bytes received, not yet a complete frame.
    inbox: Vec<u8>,
    /// Bytes that the kernel did not accept.
    backlog: Vec<u8>,
}

struct Floor {
    epoll: Epoll,
    /// In opening order.
    clients: Vec<Option<Client>>,
    coalesce: bool,
}

/// Serves until it is killed. The first line of its output is its address.
pub fn main(coalesce: bool) -> ExitCode {
    let Err(error) = serve(coalesce);
    eprintln!("floor: {error}");
    ExitCode::FAILURE
}

fn serve(coalesce: bool) -> io::Result<std::convert::Infallible> {
    raise_descriptors()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let mut floor = Floor { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?, clients: Vec::new(), coalesce };
    floor.epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    println!("{}", listener.local_addr()?);
    let mut events = vec![EpollEvent::empty(); 512];
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = floor.epoll.wait(&mut events, EpollTimeout::NONE)?;
        for event in &events[..count] {
            match event.data() {
                LISTENER => floor.accept(&listener)?,
                number => floor.ready(number as usize, event.events(), &mut buffer)?,
            }
        }
    }
}

/// Raises the limit of open files as far as possible: each client needs one.
pub fn raise_descriptors() -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

impl Floor {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, self.clients.len() as u64))?;
            self.clients.push(Some(Client {
                stream,
                open: false,
                echo: false,
                inbox: Vec::new(),
                backlog: Vec::new(),
            }));
        }
    }

    fn ready(&mut self, number: usize, ready: EpollFlags, buffer: &mut [u8]) -> io::Result<()> {
        let Some(client) = &mut self.clients[number] else { return Ok(()) };
        if ready.contains(EpollFlags::EPOLLOUT) {
            let backlog = std::mem::take(&mut client.backlog);
            client.send(&backlog);
            if client.backlog.is_empty() {
                self.epoll.modify(&client.stream, &mut EpollEvent::new(EpollFlags::EPOLLIN, number as u64))?;
            }
        }
        let count = match client.stream.read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Ok(0) | Err(_) => {
                self.clients[number] = None;
                return Ok(());
            }
            Ok(count) => count,
        };
        if client.inbox.is_empty() && client.open {
            let used = self.take(number, &mut buffer[..count])?;
            if let Some(client) = &mut self.clients[number] {
                client.inbox.extend_from_slice(&buffer[used..count]);
            }
            return Ok(());
        }
        client.inbox.extend_from_slice(&buffer[..count]);
        if !client.open {
            client.answer();
            return Ok(());
        }
        let mut inbox = std::mem::take(&mut client.inbox);
        let used = self.take(number, &mut inbox)?;
        if let Some(client) = &mut self.clients[number] {
            client.inbox.extend_from_slice(&inbox[used..]);
        }
        Ok(())
    }

    /// Forwards the frames in `bytes`. Returns the number of bytes used.
    fn take(&mut self, number: usize, bytes: &mut [u8]) -> io::Result<usize> {
        let mut used = 0;
        let mut run = Vec::new();
        while let Some(length) = frame_into(&mut bytes[used..], &mut run) {
            used += length;
            if !self.coalesce {
                self.pass_on(number, &run)?;
                run.clear();
            }
        }
        self.pass_on(number, &run)?;
        Ok(used)
    }

    /// Sends to all clients, or only back to the sender for an echo.
    fn pass_on(&mut self, from: usize, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.clients[from].as_ref().is_some_and(|client| client.echo) {
            return self.send(from, bytes);
        }
        for number in 0..self.clients.len() {
            self.send(number, bytes)?;
        }
        Ok(())
    }

    fn send(&mut self, number: usize, bytes: &[u8]) -> io::Result<()> {
        let Some(client) = self.clients[number].as_mut().filter(|client| client.open) else { return Ok(()) };
        let waited = !client.backlog.is_empty();
        client.send(bytes);
        if !waited && !client.backlog.is_empty() {
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
            self.epoll.modify(&client.stream, &mut EpollEvent::new(flags, number as u64))?;
        }
        Ok(())
    }
}

impl Client {
    /// Writes, and keeps what the kernel does not accept. A broken connection is noticed by the next read.
    fn send(&mut self, bytes: &[u8]) {
        let written = if self.backlog.is_empty() { self.stream.write(bytes).unwrap_or(0) } else { 0 };
        self.backlog.extend_from_slice(&bytes[written..]);
    }

    /// Answers the handshake, once it is complete.
    fn answer(&mut self) {
        let text = String::from_utf8_lossy(&self.inbox);
        if !text.ends_with("\r\n\r\n") {
            return;
        }
        self.echo = text.starts_with("GET /echo ");
        let key = text.split("Sec-WebSocket-Key: ").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap_or("");
        let accept = derive_accept_key(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        self.inbox = Vec::new();
        self.send(answer.as_bytes());
        self.open = true;
    }
}

/// Appends the frame at the start of `bytes` in the form that a server sends. Returns its length, if it is complete.
fn frame_into(bytes: &mut [u8], out: &mut Vec<u8>) -> Option<usize> {
    let (header, length) = match *bytes {
        [_, second, ..] if second & 0x7f < 126 => (2, usize::from(second & 0x7f)),
        [_, second, a, b, ..] if second & 0x7f == 126 => (4, usize::from(u16::from_be_bytes([a, b]))),
        [_, second, _, _, _, _, a, b, c, d, ..] if second & 0x7f == 127 => {
            (10, u32::from_be_bytes([a, b, c, d]) as usize)
        }
        _ => return None,
    };
    let end = header + 4 + length;
    let frame = bytes.get_mut(..end)?;
    let (head, payload) = frame.split_at_mut(header + 4);
    for (i, byte) in payload.iter_mut().enumerate() {
        *byte ^= head[header + i % 4];
    }
    // Control frames are not forwarded.
    if head[0] & 0x08 == 0 {
        out.push(head[0]);
        out.push(head[1] & 0x7f);
        out.extend_from_slice(&head[2..header]);
        out.extend_from_slice(payload);
    }
    Some(end)
}
