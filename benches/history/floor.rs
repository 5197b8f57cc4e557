//! The floor of durable publications: the smallest possible server that does a group commit. One thread reads all requests that have
//! arrived, appends their bodies to a file, syncs it, and answers all of them. It has no limits, no routes and no history.
//!
//! The file has its full length before, so that a sync need not write the file's length too.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// The length of the file. Writing begins again at its start.
const FILE_BYTES: u64 = 64 << 20;
const LISTENER: u64 = u64::MAX;
/// How often the file is synced if answers do not wait for it.
const INTERVAL: Duration = Duration::from_millis(50);

struct Client {
    socket: TcpStream,
    held: Vec<u8>,
    answer: Vec<u8>,
}

/// Serves until it is killed. The first line of its output is its address. Answers wait for the sync if `is_always`.
pub fn main(is_always: bool) -> ExitCode {
    let Err(error) = serve(is_always);
    eprintln!("floor: {error}");
    ExitCode::FAILURE
}

fn serve(is_always: bool) -> io::Result<std::convert::Infallible> {
    let file = Arc::new(tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR"))?);
    for at in 0..FILE_BYTES >> 20 {
        file.write_all_at(&vec![0; 1 << 20], at << 20)?;
    }
    file.sync_all()?;
    if !is_always {
        sync_in_background(file.clone());
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut clients: Vec<Option<Client>> = Vec::new();
    let mut events = vec![EpollEvent::empty(); 256];
    let mut buffer = vec![0; 256 << 10];
    let (mut pending, mut waiting, mut at) = (Vec::new(), Vec::new(), 0);
    loop {
        let ready = epoll.wait(&mut events, EpollTimeout::NONE)?;
        for event in &events[..ready] {
            if event.data() == LISTENER {
                let (socket, _) = listener.accept()?;
                socket.set_nodelay(true)?;
                socket.set_nonblocking(true)?;
                epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, clients.len() as u64))?;
                clients.push(Some(Client { socket, held: Vec::new(), answer: Vec::new() }));
                continue;
            }
            let number = event.data() as usize;
            let Some(client) = &mut clients[number] else { continue };
            match client.read(&mut buffer, &mut pending) {
                Ok(true) => waiting.push(number),
                Ok(false) => {}
                Err(_) => clients[number] = None,
            }
        }
        if waiting.is_empty() {
            continue;
        }
        append(&file, &pending, &mut at)?;
        if is_always {
            file.sync_data()?;
        }
        pending.clear();
        for number in waiting.drain(..) {
            let Some(client) = &mut clients[number] else { continue };
            if client.socket.write_all(&client.answer).is_err() {
                clients[number] = None;
            }
        }
    }
}

fn append(file: &File, bytes: &[u8], at: &mut u64) -> io::Result<()> {
    if *at + bytes.len() as u64 > FILE_BYTES {
        *at = 0;
    }
    file.write_all_at(bytes, *at)?;
    *at += bytes.len() as u64;
    Ok(())
}

fn sync_in_background(file: Arc<File>) {
    std::thread::spawn(move || {
        while file.sync_data().is_ok() {
            std::thread::sleep(INTERVAL);
        }
    });
}

impl Client {
    /// Reads what has arrived. If a request is complete, appends its body to `pending`.
    fn read(&mut self, buffer: &mut [u8], pending: &mut Vec<u8>) -> io::Result<bool> {
        match self.socket.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => self.held.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        let Some(end) = self.held.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(false) };
        let head = std::str::from_utf8(&self.held[..end]).map_err(|_| ErrorKind::InvalidData)?;
        let length = head.rsplit_once("Content-Length: ").and_then(|(_, length)| length.parse::<usize>().ok());
        let length = length.ok_or(ErrorKind::InvalidData)?;
        let body = &self.held[end + 4..];
        if body.len() < length {
            return Ok(false);
        }
        pending.extend_from_slice(body);
        // A line for each message, as pushd answers.
        let line = "{\"channel\":\"p00\",\"subscribers\":0,\"id\":\"0123456789-0123\"}\n";
        let lines = line.repeat(body.iter().filter(|&&byte| byte == b'\n').count().max(1));
        self.answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{lines}", lines.len()).into_bytes();
        self.held.clear();
        Ok(true)
    }
}
