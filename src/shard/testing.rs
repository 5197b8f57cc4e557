//! Shared by the tests of this module: clients with a given configuration, and a socket whose other end the test controls.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::config::{self, Action};
use crate::hub::{Members, Selector};
use crate::session::speech::{Plain, Speech};
use crate::session::{Arrival, Socket, Terms};
use crate::wire::{Framing, Transport};

/// A client of a route with the keys `route`, on a hub with the keys `hub`.
pub(super) fn arrival(route: &str, hub: &str) -> Arrival {
    let terms = terms(route, hub);
    let membership = terms.members.enter();
    let (framing, inflates, to, channels) = (Framing::Rfc6455, false, "all".into(), [Selector::name("all")].into());
    Arrival {
        framing,
        inflates,
        terms,
        membership,
        channels,
        since: None,
        poll: None,
        identity: None,
        granted: None,
        to,
        head: Bytes::new(),
        greeting: None,
        early: Bytes::new(),
    }
}

/// The terms of a route with the keys `route`, on a hub with the keys `hub`.
pub(super) fn terms(route: &str, hub: &str) -> Arc<Terms> {
    let file = format!(
        "[server.s]\nlisten = \"127.0.0.1:0\"\n[server.s.routes]\n\"/\" = {{ websocket = \"h\", {route} }}\n[hub.h]\n{hub}\n"
    );
    let config = config::parse(std::path::Path::new("/"), &file).unwrap();
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

/// A socket and its other end, the client's.
#[derive(Clone, Default)]
pub(super) struct Line {
    /// Bytes that the client has sent and the socket has not read.
    pub(super) says: Rc<RefCell<Vec<u8>>>,
    /// Bytes that the client has received.
    pub(super) heard: Rc<RefCell<Vec<u8>>>,
    /// How many more bytes the kernel accepts for it.
    pub(super) room: Rc<Cell<usize>>,
}

impl Socket for Line {
    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut says = self.says.borrow_mut();
        let count = says.len().min(buffer.len());
        buffer[..count].copy_from_slice(&says[..count]);
        says.drain(..count);
        if count == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
    }

    fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let all = slices.iter().map(|slice| slice.len()).sum::<usize>();
        let count = all.min(self.room.get());
        self.room.update(|room| room - count);
        self.heard.borrow_mut().extend(slices.iter().flat_map(|slice| slice.iter()).take(count));
        if count == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
    }

    fn shutdown_write(&mut self) {}

    fn peer(&self) -> String {
        String::new()
    }
}
