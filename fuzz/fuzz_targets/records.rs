//! Any bytes as the record of a session of another process: it is refused or taken up, and does not break the table.

#![no_main]

use std::io::{self, ErrorKind, IoSlice};
use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use pushd::config::{self, Action};
use pushd::hub::{Kind, Members, Message};
use pushd::session::record::Record;
use pushd::session::speech::{Plain, Speech};
use pushd::session::{Socket, Terms};
use pushd::shard::parcel::Item;
use pushd::shard::table::Table;
use pushd::wire::tagged::{self, Field};
use pushd::wire::{Transport, format1};

const FILE: &str = "[server.s]\nlisten = \"127.0.0.1:0\"\n[server.s.routes]\n\
    \"/\" = { websocket = \"h\", on_message = \"echo\" }\n\
    [hub.h]\nwhen_slow = \"drop_oldest\"\ngap_notice = \"{dropped}\"\ndeflate = true\n";

/// Accepts this many bytes in every second write; the other writes block.
struct Sink(usize, bool);

impl Socket for Sink {
    fn try_read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.1 = !self.1;
        let all: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.1 { Err(ErrorKind::WouldBlock.into()) } else { Ok(all.min(self.0)) }
    }

    fn shutdown_write(&mut self) {}

    fn peer(&self) -> String {
        String::new()
    }
}

fn terms() -> Arc<Terms> {
    let config = config::parse(Path::new("/"), FILE).unwrap();
    let Action::WebSocket(route) = config.servers[0].routes[0].action.clone() else { panic!("no such route") };
    let (hub_id, hub, members) = (route.subscription.hub, config.hubs[0].clone(), Members::default());
    let (log, speech) = (route.subscription.log, Speech::Plain(Plain::from(&route)));
    Arc::new(Terms {
        server: "s".into(),
        path: "/".into(),
        transport: Transport::WebSocket,
        log,
        speech,
        hub_id,
        hub,
        members,
        token_keys: None,
    })
}

fuzz_target!(|data: &[u8]| {
    // The first byte selects the format.
    let Some((format, data)) = data.split_first() else { return };
    let item = match format % 2 {
        0 => Item::read(data),
        _ => format1::item(data).and_then(|item| Item::read(&item)),
    };
    let Ok(Item::Session(record)) = item else { return };
    let record = *record;
    let mut written = Vec::new();
    // A tag of a later version comes first.
    tagged::put(1 << 40, &"an unknown field".to_owned(), &mut written);
    tagged::put(1, &record, &mut written);
    if record != Record::default() {
        assert_eq!(Item::read(&written), Ok(Item::Session(record.clone().into())));
    }
    let terms = terms();
    for known in [Some(terms.clone()), None] {
        let mut table = Table::new(Arc::default());
        table.tick(100);
        table.pause_reading(true);
        let key = table.take_up(Sink(7, false), record.clone(), known, terms.members.enter());
        table.pause_reading(false);
        for _ in 0..3 {
            table.read_sessions(|_| ());
            let text = Message::new(terms.hub_id, record.to.clone(), Kind::Text, b"news"[..].into());
            table.publish(Arc::new(text.into()));
            table.writable(key);
            table.flush();
        }
        // It can be handed over again, and its timers can fire.
        let left: Vec<_> = table.records().map(|(_, record, _)| record).collect();
        for record in left {
            let mut written = Vec::new();
            record.write(&mut written);
            assert_eq!(Record::read(&written), Ok(record));
        }
        (100..300).for_each(|now| {
            table.tick(now);
            table.flush();
        });
    }
});
