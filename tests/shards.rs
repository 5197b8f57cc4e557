//! Several shards act as one server: one order for each channel, complete receipts, evenly distributed connections.

mod common;

use std::net::SocketAddr;
use std::thread;

use common::http::{Answer, get, metric, publish, request};
use common::wire::Wire;
use common::ws::{TEXT, Ws, frame};
use common::{PLAIN, Pushd, start, until_true};

const WORKERS: usize = 4;
/// Four times the number of shards, so that each shard has several.
const SUBSCRIBERS: usize = 4 * WORKERS;
const MESSAGES_EACH: usize = 250;

fn sharded() -> Pushd {
    start(&format!("{PLAIN}\n[daemon]\nworkers = {WORKERS}\n"))
}

/// The number of connections of each shard, including the one that asks.
fn connections(address: SocketAddr) -> Vec<u64> {
    let answer = get(address, "/metrics");
    let of_shard = |line: &str| line.strip_prefix("pushd_connections{shard=")?.rsplit_once(' ')?.1.parse().ok();
    answer.text().lines().filter_map(of_shard).collect()
}

/// Publishes over HTTP on one connection, and checks every receipt.
fn publish_by_http(address: SocketAddr, channel: &str, name: &str, reaches: usize) {
    let mut wire = Wire::connect(address);
    for number in 0..MESSAGES_EACH {
        let message = format!("{name} {number}");
        wire.send(&request(address, "POST", &format!("/publish/{channel}"), &[], message.as_bytes()));
        let answer = Answer::read(&mut wire);
        assert_eq!((answer.status, answer.json()["subscribers"].as_u64()), (200, Some(reaches as u64)));
    }
}

/// Publishes over a WebSocket that is subscribed to another channel, so that it receives nothing itself.
fn publish_by_socket(address: SocketAddr, channel: &str, name: &str) -> Ws {
    let mut client = Ws::open(address, &format!("/say?to={channel}"));
    for chunk in (0..MESSAGES_EACH).collect::<Vec<_>>().chunks(10) {
        let frames: Vec<u8> =
            chunk.iter().flat_map(|number| frame(TEXT, format!("{name} {number}").as_bytes())).collect();
        client.wire.send(&frames);
    }
    client
}

#[test]
fn all_subscribers_receive_the_same_order_whichever_shard_publishes() {
    let say = "\"/say\" = { websocket = \"push\", channels = [\"silence\"], to = \"{to}\", on_message = \"broadcast\" }\n\"/chat\"";
    assert!(PLAIN.contains("\"/chat\""));
    let pushd = start(&format!("{}\n[daemon]\nworkers = {WORKERS}\n", PLAIN.replace("\"/chat\"", say)));
    let address = pushd.address();
    // Two channels at once; their owners may differ.
    let subscribers: Vec<(usize, Ws)> = (0..SUBSCRIBERS)
        .map(|number| (number % 2, Ws::open(address, &format!("/ws?channel=c{}", number % 2))))
        .collect();
    assert_eq!(connections(address).iter().sum::<u64>(), SUBSCRIBERS as u64 + 1);
    let orders: Vec<(usize, Vec<String>)> = thread::scope(|scope| {
        for channel in ["c0", "c1"] {
            for name in ["http-a", "http-b"] {
                scope.spawn(move || publish_by_http(address, channel, name, SUBSCRIBERS / 2));
            }
        }
        let publishers: Vec<_> = ["c0", "c1"]
            .into_iter()
            .flat_map(|channel| ["socket-a", "socket-b"].map(|name| (channel, name)))
            .map(|(channel, name)| scope.spawn(move || publish_by_socket(address, channel, name)))
            .collect();
        let receiving: Vec<_> = subscribers
            .into_iter()
            .map(|(channel, mut client)| {
                scope.spawn(move || {
                    let received: Vec<String> = (0..4 * MESSAGES_EACH).map(|_| client.next_text()).collect();
                    client.expect_nothing();
                    (channel, received)
                })
            })
            .collect();
        let orders = receiving.into_iter().map(|thread| thread.join().unwrap()).collect();
        for publisher in publishers {
            publisher.join().unwrap().close();
        }
        orders
    });
    assert_eq!(orders.len(), SUBSCRIBERS);
    for channel in 0..2 {
        let mut orders = orders.iter().filter(|(of, _)| *of == channel).map(|(_, order)| order);
        let first = orders.next().unwrap();
        for other in orders {
            let difference = first.iter().zip(other).position(|(a, b)| a != b);
            assert_eq!(difference, None, "two orders on channel {channel}");
        }
        // The order of each publisher is kept; no message is missing or duplicated.
        for name in ["http-a", "http-b", "socket-a", "socket-b"] {
            let own: Vec<&str> = first.iter().filter_map(|text| text.strip_prefix(name)?.strip_prefix(' ')).collect();
            assert_eq!(own, (0..MESSAGES_EACH).map(|number| number.to_string()).collect::<Vec<_>>(), "{name}");
        }
    }
    assert_eq!(metric(address, "pushd_publications_total"), 8 * MESSAGES_EACH as u64);
    assert_eq!(metric(address, "pushd_deliveries_total"), (4 * MESSAGES_EACH * SUBSCRIBERS) as u64);
    assert_eq!(metric(address, "pushd_messages_dropped_total"), 0);
}

#[test]
fn connections_are_distributed_evenly() {
    let pushd = sharded();
    let address = pushd.address();
    let mut clients: Vec<Ws> = Vec::new();
    for round in 1..=SUBSCRIBERS / WORKERS {
        while clients.len() < round * WORKERS {
            clients.push(Ws::open(address, "/ws"));
        }
        // The connection of an earlier request may be counted for a moment.
        until_true("an even distribution", || {
            let mut counts = connections(address);
            counts.sort_unstable();
            assert_eq!(counts.len(), WORKERS);
            counts.iter().sum::<u64>() == clients.len() as u64 + 1
                && counts[..WORKERS - 1].iter().all(|count| *count == round as u64)
        });
    }
    // New connections go to the shards from which many have left.
    clients.truncate(WORKERS);
    until_true("their end", || connections(address).iter().sum::<u64>() == WORKERS as u64 + 1);
    while clients.len() < 3 * WORKERS {
        clients.push(Ws::open(address, "/ws"));
    }
    let counts = connections(address);
    assert!(counts.iter().all(|count| (2..=4).contains(count)), "{counts:?}");
    assert_eq!(publish(address, "/publish/all", "to all"), 3 * WORKERS as u64);
    for client in &mut clients {
        client.expect_text("to all");
    }
}

#[test]
fn receipts_include_all_shards_and_channels_are_independent() {
    let pushd = sharded();
    let address = pushd.address();
    let mut clients: Vec<(usize, Ws)> = Vec::new();
    // Channel number n has n subscribers.
    for channel in 0..12 {
        clients.extend((0..channel).map(|_| (channel, Ws::open(address, &format!("/ws?channel={channel}")))));
    }
    assert_eq!(clients.len(), 66);
    for channel in 0..12 {
        assert_eq!(publish(address, &format!("/publish/{channel}"), &format!("to {channel}")), channel as u64);
    }
    for (channel, client) in &mut clients {
        client.expect_text(&format!("to {channel}"));
        client.expect_nothing();
    }
    // Clients that have left are no longer counted.
    clients.retain(|(channel, _)| channel % 2 == 0);
    until_true("the end of the others", || metric(address, "pushd_sessions") == clients.len() as u64);
    for channel in 0..12 {
        let left = if channel % 2 == 0 { channel } else { 0 };
        assert_eq!(publish(address, &format!("/publish/{channel}"), "again"), left as u64);
    }
}
