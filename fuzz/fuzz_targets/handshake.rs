//! Any bytes on an HTTP connection. They pass hyper, the routes, the handshake, publishing and the built-in pages, by way of
//! `http::connection::serve`, to a backend that checks what it gets.

#![no_main]

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::StatusCode;
use libfuzzer_sys::fuzz_target;
use pushd::config::{self, HubId, limits};
use pushd::http::pages::Files;
use pushd::http::{Backend, Client, HubInUse, Sample, Site, connection};
use pushd::hub::presence::Attendees;
use pushd::hub::{Kind, Members, Message, Outcome, Partition, Position};
use pushd::session::Arrival;
use pushd::wire::Framing;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

const CONFIG: &str = r#"
[hub.push]
message_max = "1KiB"
queue_max = "64KiB"
deflate = true
deflate_min = "16B"
[hub.news]
history = { messages = 10 }

[server.main]
listen = "127.0.0.1:8888"
hosts = "any"
[server.main.routes]
"/ws" = { websocket = "push", draft76 = true, on_message = "broadcast", subprotocols = ["a", "b"] }
"/ws/{user}" = { websocket = "push", channels = ["user/{user}/{part=all}", "all"], greeting = "hello, {user}", origins = "any" }
"/listed" = { websocket = "push", origins = ["https://example.com"] }
"/publish/{channel}" = { publish = "push", channel = "{channel}", methods = ["POST", "PUT", "GET"], message = "{text=nothing}" }
"/events" = { events = "push", channels = ["{channel=all}"], event = "{channel}" }
"/news" = { events = "news", channels = ["{channel=all}"] }
"/batch" = { publish = "push", batch = true, channel = "{channel=all}" }
"/body" = { publish = "push", channel = "all" }
"/live" = { page = "live" }
"/metrics" = { metrics = true }
"/health" = { health = true }
"/ready" = { ready = true }
"#;

static SITE: LazyLock<Arc<Site>> = LazyLock::new(|| {
    let config = config::parse("fuzz.toml".as_ref(), CONFIG).unwrap_or_else(|errors| panic!("{errors}"));
    let hubs = config.hubs.iter().enumerate().map(|(number, hub)| HubInUse {
        id: config::HubId(number as u32),
        hub: hub.clone(),
        members: Members::default(),
    });
    Arc::new(Site::new(&config.servers[0], &hubs.collect::<Vec<_>>(), &[], &HashMap::new()))
});

/// A backend that checks what it gets.
#[derive(Clone)]
struct Checking;

impl Backend for Checking {
    type Io = DuplexStream;

    fn site(&self, _: &str) -> Option<Arc<Site>> {
        Some(SITE.clone())
    }

    async fn publish(&self, message: Message, key: Option<Box<str>>) -> Option<Outcome> {
        check_channel(&message.channel);
        assert!(message.payload.len() <= 1024);
        assert!(message.kind == Kind::Binary || std::str::from_utf8(&message.payload).is_ok());
        assert!(key.is_none_or(|key| key.is_ascii() && !key.contains('\0')));
        Some(Outcome { subscribers: 1, position: None, is_refused: false })
    }

    async fn publish_all(&self, messages: Vec<(Message, Option<Box<str>>)>) -> Option<Vec<Option<Outcome>>> {
        let mut outcomes = Vec::new();
        for (message, key) in messages {
            outcomes.push(self.publish(message, key).await);
        }
        Some(outcomes)
    }

    fn position(&self, _: HubId) -> Option<Position> {
        None
    }

    async fn attendees(&self, _: HubId, _: Arc<str>, _: Partition) -> Option<Attendees> {
        None
    }

    fn adopt(&self, _: DuplexStream, arrival: Arrival) {
        arrival.channels.iter().for_each(|channel| check_channel(&channel.text));
        check_channel(&arrival.to);
        assert!(arrival.framing != Framing::Deflate || arrival.inflates);
    }

    fn read_now(_: &mut DuplexStream, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::WouldBlock.into())
    }

    fn bound_unsent(_: &DuplexStream) {}

    fn hands_over(&self) -> bool {
        false
    }

    fn files(&self) -> Files {
        Files::default()
    }

    fn put_aside(&self, _: DuplexStream, _: Bytes, _: &Arc<str>) {
        unreachable!("connections are put aside only when the process ends");
    }

    fn answered(&self, status: StatusCode) {
        // 501 is the answer to a transfer coding other than chunked.
        let is_known = status == StatusCode::NOT_IMPLEMENTED;
        assert!(is_known || !status.is_server_error(), "{status}");
    }

    fn samples(&self) -> Vec<Sample> {
        Vec::new()
    }

    fn is_draining(&self) -> bool {
        false
    }
}

fn check_channel(channel: &str) {
    assert!((1..=limits::CHANNEL_BYTES_MAX).contains(&channel.len()));
    assert!(!channel.contains(char::is_control), "{channel:?}");
}

thread_local! {
    // The clock is paused: timeouts elapse as soon as nothing else is left to do.
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
}

fuzz_target!(|data: &[u8]| {
    let Some((&options, request)) = data.split_first() else { return };
    let origin = Client {
        server: "main".into(),
        peer: "fuzz".to_owned(),
        address: None,
        on_loopback: options & 1 == 1,
        is_reserve: false,
    };
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (mut client, server) = duplex(1 << 20);
            client.write_all(request).await.unwrap();
            let (_drain, draining) = watch::channel(false);
            if options & 2 == 2 {
                client.shutdown().await.unwrap();
            }
            connection::serve(server, Bytes::new(), origin, Checking, draining).await;
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "an answer is HTTP");
            assert!(
                answer.is_empty() || answer.windows(4).any(|window| window == b"\r\n\r\n"),
                "and has a complete head"
            );
        });
    });
});
