//! The measured servers. Each is a process of its own on a port of its own, and is killed when dropped.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The configuration of pushd.
const CONFIG: &str = r#"
[server.main]
listen = "127.0.0.1:0"
[server.main.routes]
"/" = { websocket = "push", on_message = "broadcast" }
"/echo" = { websocket = "push", on_message = "echo" }
"/events" = { events = "push" }
"/publish" = { publish = "push", channel = "all" }
"/large" = { websocket = "large", on_message = "broadcast" }
[hub.push]
[hub.large]
message_max = "64MiB"
queue_max = "512MiB"
[daemon]
workers = 1
"#;
/// The hub of the other routes, and what it has in addition to keep a history in memory. nchan keeps as much (see `benches/peers/nchan`).
const HUB: &str = "[hub.push]\n";
const HISTORY: &str = "history = { messages = 256, age = \"1h\" }\n";
/// The address in it.
const LISTEN: &str = "listen = \"127.0.0.1:0\"\n";
/// How long a server may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// The kind of server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The floor: one `send` for each delivery.
    Send,
    /// The floor: the messages of one read are sent with one `send`.
    Coalesce,
    /// pushd with one shard.
    Pushd,
    /// The same with a history of what is published.
    History,
    /// pushd over TLS, with this line in its configuration.
    Tls(String),
    /// tokio-tungstenite with a task and a channel for each connection.
    Task,
    /// Another server: its name in the table, and the command that starts it on `{port}`. It must be one process.
    Beside(String, String),
}

impl Kind {
    /// The kinds that are always measured, in this order.
    pub const OWN: [Kind; 4] = [Kind::Send, Kind::Coalesce, Kind::Pushd, Kind::Task];

    /// Another server, written as `NAME=COMMAND`.
    pub fn beside(text: &str) -> Option<Kind> {
        let (name, command) = text.split_once('=')?;
        Some(Kind::Beside(name.to_owned(), command.to_owned())).filter(|_| command.contains("{port}"))
    }

    /// The name in the table.
    pub fn name(&self) -> &str {
        match self {
            Kind::Send => "floor: send",
            Kind::Coalesce => "floor: coalesce",
            Kind::Pushd => "pushd",
            Kind::History => "pushd with history",
            Kind::Tls(_) => "pushd over TLS",
            Kind::Task => "tungstenite, tasks",
            Kind::Beside(name, _) => name,
        }
    }
}

/// A running server.
pub struct Server {
    /// Its address.
    pub address: String,
    child: Child,
    directory: Option<TempDir>,
}

impl Server {
    /// Starts a server, and waits until it listens.
    pub fn start(kind: &Kind) -> Result<Server, String> {
        match kind {
            Kind::Send => Server::this("send"),
            Kind::Coalesce => Server::this("coalesce"),
            Kind::Task => Server::this("task"),
            Kind::Pushd => Server::pushd(CONFIG),
            Kind::History => Server::pushd(&CONFIG.replacen(HUB, &format!("{HUB}{HISTORY}"), 1)),
            Kind::Tls(line) => Server::pushd(&CONFIG.replacen(LISTEN, &format!("{LISTEN}{line}\n"), 1)),
            Kind::Beside(_, command) => Server::beside(command),
        }
        .map_err(|error| format!("cannot be started: {error}"))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Starts this executable as another server.
    fn this(kind: &str) -> std::io::Result<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.args(["--serve", kind]).stdout(Stdio::piped()).spawn()?;
        let mut address = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut address)?;
        }
        Ok(Server { address: address.trim().to_owned(), child, directory: None })
    }

    /// Uses a port that was free a moment ago, because other servers do not report a port of their choice.
    fn beside(command: &str) -> std::io::Result<Server> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let command = format!("exec {}", command.replace("{port}", &address.port().to_string()));
        let directory = tempfile::tempdir()?;
        let log = fs::File::create(directory.path().join("log"))?;
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = shell.spawn()?;
        let mut server = Server { address: address.to_string(), child, directory: Some(directory) };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if began.elapsed() > START_TIMEOUT || server.child.try_wait()?.is_some() {
                let log = server.directory.as_ref().map(|directory| fs::read_to_string(directory.path().join("log")));
                return Err(std::io::Error::other(log.transpose()?.unwrap_or_default()));
            }
            sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    fn pushd(config: &str) -> std::io::Result<Server> {
        let directory = tempfile::tempdir()?;
        fs::write(directory.path().join("pushd.toml"), config)?;
        let binary = std::env::var_os("PUSHD_BENCH_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_pushd").into());
        let mut command = Command::new(binary);
        command.args(["-n", "-c", "pushd.toml"]).current_dir(directory.path()).stdin(Stdio::null());
        let log = directory.path().join("log");
        let child = command.stdout(Stdio::null()).stderr(fs::File::create(&log)?).spawn()?;
        let mut server = Server { address: String::new(), child, directory: Some(directory) };
        let began = Instant::now();
        while server.address.is_empty() {
            let text = fs::read_to_string(&log)?;
            // Only complete lines, because a partial line could end inside an address.
            let listening = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            let address = listening.filter_map(|line| line.split_once("Listening on ")?.1.split(' ').next()).next();
            server.address = address.unwrap_or_default().to_owned();
            if began.elapsed() > START_TIMEOUT || server.child.try_wait()?.is_some() {
                return Err(std::io::Error::other(text));
            }
            sleep(Duration::from_millis(5));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The shutdown is not measured.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}
