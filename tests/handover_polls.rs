//! Polls over a restart that keeps the sessions: those that wait go on in the next process.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::http::{metric, publish_kept as publish};
use common::polls::{Poll, poll, position, texts};
use common::service::Service;
use common::until_true;
use serde_json::json;

fn config(workers: usize) -> String {
    format!(
        r#"
[daemon]
workers = {workers}
[server.main]
listen = "127.0.0.1:0"
[server.main.routes]
"/poll" = {{ poll = "news", channels = ["{{channel=all}}"] }}
"/pattern" = {{ poll = "news", channels = ["*"] }}
"/gone" = {{ poll = "news", channels = ["all"] }}
"/publish/{{channel}}" = {{ publish = "news", channel = "{{channel}}" }}
"/metrics" = {{ metrics = true }}
[hub.news]
history = {{ messages = 10000 }}
"#
    )
}

#[test]
fn polls_that_wait_go_on_in_the_next_process() {
    let mut service = Service::started(&config(3));
    let address = service.address();
    let mut since = publish(address, "all", "0");
    for workers in [1, 3, 2] {
        let targets = ["/poll", "/poll", "/pattern"].into_iter().cycle().take(7);
        let polls: Vec<Poll> = targets.map(|target| Poll::waiting(address, target, &since)).collect();
        let other = publish(address, "another%2Fone", "not for these");
        let (began, timed) = (Instant::now(), Poll::send(address, &format!("/poll?since={other}&wait=2s"), &[]));
        until_true("the polls", || metric(address, "pushd_sessions") == 8);
        service.configure(&config(workers));
        service.restart();
        // The time that it waits is counted on.
        assert_eq!(timed.answer(), json!({ "position": other, "messages": [], "gap": false }));
        let waited = began.elapsed();
        assert!(waited >= Duration::from_secs(2) && waited < Duration::from_secs(20), "{waited:?}");
        let id = publish(address, "all", "next");
        for poll in polls {
            let messages = [json!({ "channel": "all", "id": id, "data": "next" })];
            assert_eq!(poll.answer(), json!({ "position": id, "messages": messages, "gap": false }));
        }
        since = id;
    }
}

#[test]
fn a_poll_whose_route_is_gone_is_answered() {
    let mut service = Service::started(&config(2));
    let address = service.address();
    let since = publish(address, "all", "0");
    let polls: Vec<Poll> = (0..3).map(|_| Poll::waiting(address, "/gone", &since)).collect();
    until_true("the polls", || metric(address, "pushd_sessions") == 3);
    let without: String =
        config(1).lines().filter(|line| !line.contains("/gone")).map(|line| format!("{line}\n")).collect();
    service.configure(&without);
    service.restart();
    for poll in polls {
        assert_eq!(poll.answer(), json!({ "position": since, "messages": [], "gap": false }));
    }
}

#[test]
fn a_client_that_polls_misses_nothing_over_restarts() {
    let mut service = Service::started(&config(3));
    let address = service.address();
    let since = position(&poll(address, "/poll"));
    let (published, ends) = (std::sync::Mutex::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let poller = |limit: usize| {
            let mut since = since.clone();
            let mut received = Vec::new();
            while received.last().map(String::as_str) != Some("the end") {
                let answer = poll(address, &format!("/poll?since={since}&limit={limit}"));
                assert_eq!(answer["gap"], false, "{answer}");
                received.extend(texts(&answer).into_iter().map(str::to_owned));
                since = position(&answer);
            }
            received.pop();
            received
        };
        let pollers: Vec<_> = [1, 7, 100].into_iter().map(|limit| scope.spawn(move || poller(limit))).collect();
        scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                let mut next = published.lock().unwrap();
                publish(address, "all", &next.to_string());
                *next += 1;
            }
            publish(address, "all", "the end");
        });
        for workers in [1, 3, 2, 3] {
            let before = *published.lock().unwrap();
            until_true("publications", || *published.lock().unwrap() > before + 20);
            service.configure(&config(workers));
            service.restart();
        }
        ends.store(true, Ordering::Relaxed);
        for poller in pollers {
            let expected: Vec<String> = (0..*published.lock().unwrap()).map(|n: usize| n.to_string()).collect();
            assert_eq!(poller.join().unwrap(), expected);
        }
    });
}
