//! The servers that are measured: each a process of its own, on a port of its own, gone when it is dropped.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// What pushd serves here.
const CONFIG: &str = r#"
[server.main]
listen = "127.0.0.1:0"
[server.main.routes]
"/" = { websocket = "push", on_message = "broadcast" }
"/echo" = { websocket = "push", on_message = "echo" }
"/large" = { websocket = "large", on_message = "broadcast" }
[hub.push]
[hub.large]
message_max = "64MiB"
queue_max = "512MiB"
[daemon]
workers = 1
"#;
/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The floor: one `send` for each delivery.
    Send,
    /// The floor: what came in one read leaves in one `send`.
    Coalesce,
    /// pushd with one shard.
    Pushd,
    /// tokio-tungstenite with a task and a channel for each connection.
    Task,
    /// Another server: what the table calls it, and the words that start it on `{port}`. Its one process is looked at.
    Beside(String, String),
}

impl Kind {
    /// Those that are always measured, in the order of their turns.
    pub const OWN: [Kind; 4] = [Kind::Send, Kind::Coalesce, Kind::Pushd, Kind::Task];

    /// Another server, written as `NAME=COMMAND`.
    pub fn beside(text: &str) -> Option<Kind> {
        let (name, command) = text.split_once('=')?;
        Some(Kind::Beside(name.to_owned(), command.to_owned())).filter(|_| command.contains("{port}"))
    }

    /// As the table names it.
    pub fn name(&self) -> &str {
        match self {
            Kind::Send => "floor: send",
            Kind::Coalesce => "floor: coalesce",
            Kind::Pushd => "pushd",
            Kind::Task => "tungstenite, tasks",
            Kind::Beside(name, _) => name,
        }
    }
}

/// A server that runs.
pub struct Server {
    /// Where it listens.
    pub address: String,
    child: Child,
    place: Option<TempDir>,
}

impl Server {
    /// Starts one, and waits until it listens.
    pub fn start(kind: &Kind) -> Result<Server, String> {
        match kind {
            Kind::Send => Server::this("send"),
            Kind::Coalesce => Server::this("coalesce"),
            Kind::Task => Server::this("task"),
            Kind::Pushd => Server::pushd(),
            Kind::Beside(_, command) => Server::beside(command),
        }
        .map_err(|error| format!("cannot be started: {error}"))
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// This executable again, as another server.
    fn this(kind: &str) -> std::io::Result<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.args(["--serve", kind]).stdout(Stdio::piped()).spawn()?;
        let mut address = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut address)?;
        }
        Ok(Server { address: address.trim().to_owned(), child, place: None })
    }

    /// A port that was free a moment ago: other servers do not tell which one they found.
    fn beside(command: &str) -> std::io::Result<Server> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let command = format!("exec {}", command.replace("{port}", &address.port().to_string()));
        let place = tempfile::tempdir()?;
        let log = fs::File::create(place.path().join("log"))?;
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = shell.spawn()?;
        let mut server = Server { address: address.to_string(), child, place: Some(place) };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if began.elapsed() > PATIENCE || server.child.try_wait()?.is_some() {
                let log = server.place.as_ref().map(|place| fs::read_to_string(place.path().join("log")));
                return Err(std::io::Error::other(log.transpose()?.unwrap_or_default()));
            }
            sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    fn pushd() -> std::io::Result<Server> {
        let place = tempfile::tempdir()?;
        fs::write(place.path().join("pushd.toml"), CONFIG)?;
        let binary = std::env::var_os("PUSHD_BENCH_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_pushd").into());
        let mut command = Command::new(binary);
        command.args(["-n", "-c", "pushd.toml"]).current_dir(place.path()).stdin(Stdio::null());
        let log = place.path().join("log");
        let child = command.stdout(Stdio::null()).stderr(fs::File::create(&log)?).spawn()?;
        let mut server = Server { address: String::new(), child, place: Some(place) };
        let began = Instant::now();
        while server.address.is_empty() {
            let text = fs::read_to_string(&log)?;
            // A whole line, or half of an address would be taken for one.
            let listening = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            let address = listening.filter_map(|line| line.split_once("Listening on ")?.1.split(' ').next()).next();
            server.address = address.unwrap_or_default().to_owned();
            if began.elapsed() > PATIENCE || server.child.try_wait()?.is_some() {
                return Err(std::io::Error::other(text));
            }
            sleep(Duration::from_millis(5));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its end is not what is measured.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}
