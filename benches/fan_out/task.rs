//! The common design: a task and a channel for each connection, on tokio-tungstenite, as in a simple chat server.
//!
//! Each message of a client is sent to the channels of all clients, or at /echo back to the sender. It has one thread,
//! like every server here.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::{LocalSet, spawn_local};
use tokio_tungstenite::accept_hdr_async;
use tungstenite::Message;
use tungstenite::handshake::server::{Request, Response};

type Clients = Rc<RefCell<Vec<Option<UnboundedSender<Message>>>>>;

/// Serves until it is killed. The first line of its output is its address.
pub fn main() -> ExitCode {
    let served = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .and_then(|runtime| LocalSet::new().block_on(&runtime, serve()));
    let Err(error) = served;
    eprintln!("task: {error}");
    ExitCode::FAILURE
}

async fn serve() -> io::Result<Infallible> {
    super::floor::raise_descriptors()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let clients = Clients::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // A client that disconnects is not an error of the server.
        spawn_local(client(stream, clients.clone()));
    }
}

#[expect(clippy::result_large_err, reason = "what tungstenite's callback returns")]
async fn client(stream: TcpStream, clients: Clients) -> Option<()> {
    let mut echo = false;
    let look = |request: &Request, response: Response| {
        echo = request.uri().path() == "/echo";
        Ok(response)
    };
    let (mut out, mut incoming) = accept_hdr_async(stream, look).await.ok()?.split();
    let (own, mut waiting) = unbounded_channel::<Message>();
    let number = clients.borrow().len();
    clients.borrow_mut().push(Some(own.clone()));
    let write = async {
        while let Some(message) = waiting.recv().await {
            out.send(message).await.ok()?;
        }
        Some(())
    };
    let read = async {
        while let Some(Ok(message)) = incoming.next().await {
            match message {
                Message::Text(_) | Message::Binary(_) if echo => own.send(message).ok()?,
                Message::Text(_) | Message::Binary(_) => {
                    for client in clients.borrow().iter().flatten() {
                        // A client that is just disconnecting no longer receives.
                        let _ = client.send(message.clone());
                    }
                }
                _ => {}
            }
        }
        Some(())
    };
    tokio::select! {
        _ = write => {}
        _ = read => {}
    }
    clients.borrow_mut()[number] = None;
    Some(())
}
