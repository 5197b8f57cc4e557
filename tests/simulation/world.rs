//! Shards, clients and a clock, which take random steps.

#[path = "handover.rs"]
mod handover;
#[path = "history.rs"]
mod history;

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use bytes::Bytes;
use pushd::config::limits::{CLOSE_TIMEOUT, RUN_FRAME_BYTES_MAX, TURN_BYTES_MAX};
use pushd::config::{Accept, Hub, HubId, OnMessage, WhenSlow};
use pushd::hub::history::Memory;
use pushd::hub::{Kind, Members, Message, Outcome, Receipt, Selector, Since};
use pushd::session::speech::Speech;
use pushd::session::{Arrival, Phase, Seconds, Terms};
use pushd::shard::mailbox::Mailbox;
use pushd::shard::poller::Ready;
use pushd::shard::relay::Relay;
use pushd::shard::table::{Pace, SessionKey, Table};
use pushd::wire::{Close, Framing};

use crate::client::{Client, ENVELOPE_BYTES, Reply};
use crate::model::{CHANNELS, Channel, Form, Model, Order, Source};
use crate::random::Random;
use crate::setting::{self, Route};
use crate::socket::{FakeSocket, Pipe};
use crate::speech::{self, Decoder, Received};
use history::{Absent, Remembered};

/// The maximum bytes of gap notices besides a full queue: as many as go into one write.
const NOTICES_BYTES: usize = 64 * 30;

/// A shard, and the witnesses on it.
struct Shard {
    relay: Relay,
    table: Table<FakeSocket>,
    witnesses: Vec<Witness>,
    /// How much of the order of each channel its table has got, flushed or not.
    published: Vec<usize>,
}

struct Witness {
    key: SessionKey,
    pipe: std::rc::Rc<std::cell::RefCell<Pipe>>,
    decoder: Decoder,
    ended: bool,
}

/// A client that is about to connect.
struct Newcomer {
    shard: usize,
    terms: Arc<Terms>,
    form: Form,
    /// What it subscribes to.
    selectors: Vec<Selector>,
    /// The names of its channels, by number.
    names: Vec<usize>,
    /// The one that it publishes on.
    to: usize,
    steady: bool,
    since: Option<Since>,
}

pub struct World {
    random: Random,
    model: Model,
    mailboxes: Arc<[Mailbox]>,
    /// The histories of hubs, as they were seen last.
    remembered: Vec<Option<Remembered>>,
    memory: Memory,
    memory_max: usize,
    /// Clients that are gone, and may return.
    absent: Vec<Absent>,
    /// Most clients and publications go to this hub.
    favourite: Option<usize>,
    /// The server ends.
    is_ending: bool,
    /// Many clients vanish and return.
    restless: bool,
    shards: Vec<Shard>,
    hubs: Vec<Hub>,
    members: Vec<Members>,
    routes: Vec<Route>,
    clients: Vec<Client>,
    /// The clients that are not gone.
    live: Vec<usize>,
    now: Seconds,
    /// An exact world: clients of hubs that drop messages stay until the end, and no other clients are slow. So the number of
    /// dropped messages is known exactly.
    exact: bool,
    /// A shard that takes no turns, and for how many more steps.
    stalled: Option<(usize, usize)>,
    /// All clients connect to this hub, and stay for a short time.
    crowded: Option<usize>,
    /// Whether this world has floods of thousands of publications.
    floods: bool,
}

fn channel_of(hub: usize, name: usize) -> Channel {
    hub * CHANNELS.len() + name
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let exact = random.once_in(3);
        let hubs = setting::hubs(exact, &mut random);
        let members: Vec<_> = hubs.iter().map(|_| Members::default()).collect();
        let routes = setting::routes(&hubs, &members, &mut random);
        let crowded = (!exact && random.once_in(4)).then(|| random.below(hubs.len()));
        let count = if crowded.is_some() { 1 } else { 1 + random.below(4) };
        let mailboxes: Arc<[Mailbox]> = (0..count).map(|_| Mailbox::default()).collect();
        let channels = hubs.len() * CHANNELS.len();
        let beginnings = hubs.iter().map(|hub| hub.history.as_ref().map(|_| history::beginning(&mut random)));
        let beginnings: Vec<_> = beginnings.collect();
        let orders = beginnings.iter().map(|beginning| beginning.map(|beginning| Order::new(beginning, count)));
        let model = Model::new(count, orders.collect());
        let memory_max = history::memory_max(&mut random);
        let memory = Memory::new(memory_max);
        let remembered = hubs.iter().zip(beginnings).map(|(hub, beginning)| Some(Remembered::new(hub, beginning?)));
        let remembered: Vec<_> = remembered.collect();
        let shards = (0..count).map(|index| {
            let mut table = Table::new(mailboxes[index].counters.clone());
            table.set_pace(setting::pace(&mut random));
            let relay = Relay::new(index, mailboxes.clone());
            history::plan(&remembered, &relay, &mut table, &memory);
            let witnesses = hubs.iter().enumerate().map(|(number, hub)| {
                let pipe = Pipe::new(usize::MAX / 2);
                let terms = setting::witness(hub, number, &members[number]);
                let channels = CHANNELS.iter().map(|&name| Selector::name(name)).collect();
                let form = Form { framing: Framing::Rfc6455, envelope: hub.history.is_some() };
                let arrival = arrival(form.framing, terms, channels, CHANNELS[0].into(), None);
                let key = table.adopt(FakeSocket(pipe.clone()), arrival.unwrap());
                Witness { key, pipe, decoder: Decoder::new(form), ended: false }
            });
            let witnesses = witnesses.collect();
            Shard { relay, table, witnesses, published: vec![0; channels] }
        });
        let shards = shards.collect();
        let favourite = random.once_in(2).then(|| random.below(hubs.len()));
        let (floods, restless) = (random.once_in(25), random.once_in(2));
        let (clients, live, absent, now, stalled) = (Vec::new(), Vec::new(), Vec::new(), 0, None);
        World {
            random,
            model,
            mailboxes,
            remembered,
            memory,
            memory_max,
            absent,
            restless,
            favourite,
            is_ending: false,
            shards,
            hubs,
            members,
            routes,
            clients,
            live,
            now,
            exact,
            stalled,
            crowded,
            floods,
        }
    }

    /// Takes a random step.
    pub fn step(&mut self) {
        let shard = self.random.below(self.shards.len());
        match self.random.below(100) {
            0..6 => self.connect(None),
            6..22 => self.with_client(World::send_message),
            22..27 => self.with_client(World::ping),
            27..29 => self.with_client(World::end),
            29 if self.crowded.is_some() || self.restless => self.with_client(World::end),
            29..32 => self.with_client(World::toggle_reading),
            32..48 => self.publish_outside(shard),
            48..62 => self.network(),
            62..74 => self.read(),
            74..96 if self.has_reason_for_turn(shard) => self.turn(shard),
            74..96 => {}
            96 if self.random.once_in(3) => self.tick(),
            97 if self.random.once_in(10) => self.rebind(),
            97 if self.random.once_in(12) => self.change_history(),
            97 if self.random.once_in(30) => self.publish_much(),
            98 if self.random.once_in(8) => self.hand_over(),
            98 if self.floods && self.random.once_in(10) => self.flood(),
            99 if self.random.once_in(60) => self.burst(),
            _ => self.stray_event(shard),
        }
        if let Some((_, left)) = &mut self.stalled {
            *left -= 1;
            if *left == 0 {
                self.stalled = None;
            }
        }
    }

    fn with_client(&mut self, act: impl FnOnce(&mut World, usize)) {
        let able: Vec<_> = self.live.iter().copied().filter(|&number| !self.clients[number].silent).collect();
        if !able.is_empty() {
            let number = self.random.one_of(&able);
            act(self, number);
        }
    }

    fn any_hub(&mut self) -> usize {
        let favourite = self.favourite.filter(|_| !self.random.once_in(3));
        favourite.unwrap_or_else(|| self.random.below(self.hubs.len()))
    }

    /// A client connects, to a hub or to any of them.
    fn connect(&mut self, to: Option<usize>) {
        if self.live.len() >= 25 {
            return;
        }
        let absent = (!self.absent.is_empty() && to.is_none() && self.random.once_in(2)).then(|| {
            let number = self.random.below(self.absent.len());
            self.absent.swap_remove(number)
        });
        let route = match (&absent, to.or(self.crowded)) {
            (Some(absent), _) => 2 * absent.hub + self.random.below(2),
            (None, Some(hub)) => 2 * hub + self.random.below(2),
            (None, None) => 2 * self.any_hub() + self.random.below(2),
        };
        if self.routes[route].is_removed {
            return;
        }
        let terms = self.routes[route].terms.clone();
        let framing = self.random.one_of(&[
            Framing::Rfc6455,
            Framing::Rfc6455,
            Framing::Deflate,
            Framing::Hixie76,
            Framing::EventStream,
            Framing::BareEventStream,
        ]);
        let Speech::Plain(plain) = &terms.speech;
        let form = Form { framing, envelope: plain.envelope && !framing.is_events() };
        let mut names: Vec<usize> = (0..CHANNELS.len()).filter(|_| self.random.once_in(2)).collect();
        if names.is_empty() {
            names.push(0);
        }
        let mut selectors: Vec<Selector> = names.iter().map(|&name| Selector::name(CHANNELS[name])).collect();
        if self.random.once_in(3) {
            // It may select a channel twice.
            selectors.truncate(self.random.below(2));
            selectors.push(Selector::pattern(self.random.one_of(&["*", "**", "a/*", "a/**"])));
        }
        if let Some(absent) = &absent {
            selectors.clone_from(&absent.selectors);
        }
        let is_selected = |name: &usize| selectors.iter().any(|selector| selector.selects(CHANNELS[*name]));
        names = (0..CHANNELS.len()).filter(is_selected).collect();
        let target = if self.random.once_in(2) { names[0] } else { self.random.below(CHANNELS.len()) };
        let steady = self.random.once_in(if to.is_some() { 6 } else { 3 })
            || (self.exact && terms.hub.when_slow == WhenSlow::Disconnect);
        let shard = self.random.below(self.shards.len());
        // Only when everything is flushed, it is known here what was published before the client connected.
        while self.shards[shard].table.is_flushing() {
            if self.stalled.is_some() {
                return;
            }
            self.turn(shard);
        }
        let since = self.since(absent, &terms);
        self.arrive(Newcomer { shard, terms, form, selectors, names, to: target, steady, since });
    }

    fn arrive(&mut self, Newcomer { shard, terms, form, selectors, names, to, steady, since }: Newcomer) {
        let (number, hub, framing) = (self.clients.len(), terms.hub_id.0 as usize, form.framing);
        let arrival = arrival(framing, terms.clone(), selectors.clone(), CHANNELS[to].into(), since);
        let Some(mut arrival) = arrival else { return };
        // Some clients negotiate compression in one direction only.
        arrival.inflates |= framing == Framing::Rfc6455 && self.random.once_in(4);
        arrival.greeting = self.random.once_in(2).then(|| format!("welcome, {number}"));
        let capacity = if steady { usize::MAX / 2 } else { self.random.one_of(&[100, 3_000, 60_000]) };
        let pipe = Pipe::new(capacity);
        let (subscriptions, place) = self.subscriptions(shard, hub, &names, form, since);
        let queue_least = (terms.hub.queue_messages_max, terms.hub.queue_bytes_max);
        self.clients.push(Client {
            number,
            shard,
            key: SessionKey { slot: 0, generation: 0 },
            form,
            terms,
            to: channel_of(hub, to),
            selectors,
            subscriptions,
            place,
            live_since: self.now,
            pipe: pipe.clone(),
            decoder: Decoder::new(form),
            greeting: arrival.greeting.clone(),
            replies: Default::default(),
            last_echo: None,
            reads: true,
            answers: self.exact || !self.random.once_in(6),
            steady,
            silent: false,
            vanished: false,
            timed_out: false,
            codes: Vec::new(),
            close: None,
            missed: 0,
            notified: 0,
            queue_bytes_max: 0,
            queue_least,
            open_seen_at: self.now,
            ended: false,
            gone: false,
        });
        self.live.push(number);
        // Its first messages may arrive with its handshake.
        let early = self.random.one_of(&[0, 0, 0, 1, 3]);
        let known = self.model.messages.len();
        (0..early).for_each(|_| self.send_message(number));
        arrival.early = pipe.borrow_mut().flying.drain(..).collect::<Vec<_>>().into();
        let here = &mut self.shards[shard];
        self.clients[number].key = here.table.adopt(FakeSocket(pipe), arrival);
        let before = here.relay.mailbox().counters.published.value();
        here.relay.relay_published(&mut here.table);
        here.relay.mailbox().bell.notify_one();
        // The other early messages are decoded in a later turn, or wait in the shard's own lane.
        let published = here.relay.mailbox().counters.published.value() - before;
        let own = self.model.messages[known..].iter().filter_map(|message| message.channel);
        let own: Vec<_> = own.filter(|&channel| self.owner(channel) == shard).collect();
        for &channel in &own[..published as usize] {
            self.shards[shard].published[channel] += 1;
        }
    }

    /// A client sends a message.
    fn send_message(&mut self, number: usize) {
        let client = &mut self.clients[number];
        if client.form.framing.is_events() {
            return;
        }
        let terms = client.terms.clone();
        let kind = match client.form.framing {
            Framing::Hixie76 => Kind::Text,
            _ => self.random.one_of(&[Kind::Text, Kind::Text, Kind::Binary]),
        };
        let size = size(terms.hub.message_bytes_max, &mut self.random);
        let payload = self.model.payload(kind, size, &mut self.random);
        let between = (client.form.framing != Framing::Hixie76 && self.random.once_in(8)).then(|| {
            let ping = payload[..payload.len().min(20)].to_vec();
            client.replies.push_back(Reply::Pong(ping.clone()));
            speech::frame(0x89, &ping, &mut self.random)
        });
        let bytes = speech::message(client.form.framing, kind, &payload, between.as_deref(), &mut self.random);
        client.pipe.borrow_mut().flying.extend(bytes);
        let Speech::Plain(plain) = &terms.speech;
        let is_taken = match plain.accept {
            Accept::Both => true,
            Accept::Text => kind == Kind::Text,
            Accept::Binary => kind == Kind::Binary,
        };
        let prefix = self.routes.iter().find(|route| route.terms.path == terms.path).unwrap().prefix;
        let published = [prefix.as_bytes(), &payload].concat();
        match plain.on_message {
            OnMessage::Broadcast if is_taken => {
                self.model.note(kind, published, Some(client.to), Source::Client(number));
            }
            OnMessage::Echo if is_taken => {
                let echo = self.model.note(kind, published, None, Source::Client(number));
                client.replies.push_back(Reply::Echo(echo));
            }
            _ => {
                self.model.note(kind, published, None, Source::Client(number));
            }
        }
    }

    fn ping(&mut self, number: usize) {
        let client = &mut self.clients[number];
        if client.form.framing == Framing::Hixie76 || client.form.framing.is_events() {
            return;
        }
        let payload = vec![b'p'; self.random.below(126)];
        client.pipe.borrow_mut().flying.extend(speech::frame(0x89, &payload, &mut self.random));
        client.replies.push_back(Reply::Pong(payload));
    }

    /// A client ends its session: by a close, by a violation, or by a disconnect.
    fn end(&mut self, number: usize) {
        let client = &mut self.clients[number];
        if self.exact && !client.is_strict() {
            return;
        }
        // The client of an event stream can only disconnect.
        match if client.form.framing.is_events() { 3 + self.random.below(2) } else { self.random.below(5) } {
            0 | 1 => {
                let code = self.random.one_of(&[None, Some(1000), Some(1001), Some(4000)]);
                let bytes = speech::close(client.form.framing, code, &mut self.random);
                client.expect(code.unwrap_or(1000));
                client.pipe.borrow_mut().flying.extend(bytes);
            }
            2 => {
                let limit = client.terms.hub.message_bytes_max;
                let (mut bytes, code) = speech::violation(client.form.framing, limit, &mut self.random);
                bytes.extend((0..self.random.below(50)).map(|_| self.random.number() as u8));
                client.expect(code);
                client.pipe.borrow_mut().flying.extend(bytes);
            }
            3 => {
                client.vanished = true;
                client.pipe.borrow_mut().end_flying = true;
            }
            _ => {
                client.vanished = true;
                client.pipe.borrow_mut().reset();
            }
        }
        client.silent = true;
    }

    /// A client stops or continues to read.
    fn toggle_reading(&mut self, number: usize) {
        let client = &mut self.clients[number];
        client.reads = client.steady || !client.reads;
    }

    /// A publication by HTTP or a feed, on a shard.
    fn publish_outside(&mut self, shard: usize) {
        let hub = self.any_hub();
        let channel = channel_of(hub, self.random.below(CHANNELS.len()));
        let size = size(self.hubs[hub].message_bytes_max, &mut self.random);
        let kind = self.random.one_of(&[Kind::Text, Kind::Text, Kind::Binary]);
        self.publish(shard, channel, kind, size);
    }

    fn publish(&mut self, shard: usize, channel: Channel, kind: Kind, size: usize) {
        let payload = self.model.payload(kind, size, &mut self.random);
        let key = self.random.once_in(4).then(|| self.random.one_of(&["a", "b", "c", "d", "e", "f", "g"]));
        let first = key.and_then(|key| self.model.keys.get(&(channel, key)).copied());
        let goes_to = Some(channel).filter(|_| first.is_none());
        let number = self.model.note(kind, payload.clone(), goes_to, Source::Outside(shard));
        let outcomes = Arc::new(Mutex::new(Vec::new()));
        let noted = &mut self.model.messages[number];
        (noted.receipt, noted.repeats) = (Some(outcomes.clone()), first);
        let message = self.message(channel, kind, payload.into());
        let receipt = Receipt::new(move |outcome| outcomes.lock().unwrap().push(outcome));
        let receipt = receipt.with_key(key.map(Into::into));
        let here = &mut self.shards[shard];
        let before = here.relay.mailbox().counters.published.value();
        let is_taken = here.relay.publish(message.with_receipt(receipt), &mut here.table);
        match (is_taken, first, key) {
            (true, None, Some(key)) => {
                self.model.keys.insert((channel, key), number);
            }
            (false, None, _) => self.model.refuse(number),
            (false, Some(_), _) => self.model.messages[number].repeats = None,
            (true, ..) => {}
        }
        here.published[channel] += (here.relay.mailbox().counters.published.value() - before) as usize;
    }

    fn message(&self, channel: Channel, kind: Kind, payload: Bytes) -> Message {
        let (hub, name) = (channel / CHANNELS.len(), channel % CHANNELS.len());
        let message = Message::new(HubId(hub as u32), CHANNELS[name].into(), kind, payload);
        message.ordered(self.remembered[hub].is_some())
    }

    fn owner(&self, channel: Channel) -> usize {
        self.shards[0].relay.owner_of(self.message(channel, Kind::Text, Bytes::new()).partition)
    }

    /// Alternating publications on two channels of one hub: more of them than one write accepts slices.
    fn burst(&mut self) {
        let hub = self.random.below(self.hubs.len());
        let channels: Vec<_> = (0..CHANNELS.len()).map(|name| channel_of(hub, name)).collect();
        let shard = self.owner(channels[0]);
        let others = channels[1..].iter().filter(|&&channel| self.owner(channel) == shard);
        let Some(&other) = others.max() else { return };
        for _ in 0..1_200 {
            self.publish(shard, channels[0], Kind::Text, 0);
            self.publish(shard, other, Kind::Text, 0);
        }
    }

    /// One shard takes no turns for a while, and its lanes fill up.
    fn flood(&mut self) {
        if self.shards.len() == 1 {
            return;
        }
        let (stalled, from) = (self.random.below(self.shards.len()), self.random.below(self.shards.len()));
        let hub = self.random.below(self.hubs.len());
        let channel = channel_of(hub, self.random.below(CHANNELS.len()));
        for shard in 0..self.shards.len() {
            self.turn(shard);
        }
        self.stalled = Some((stalled, 150));
        for number in 0..9_000 {
            self.publish(from, channel, Kind::Text, 0);
            if number % 500 == 0 {
                (0..self.shards.len()).for_each(|shard| self.turn(shard));
            }
        }
    }

    /// Bytes arrive.
    fn network(&mut self) {
        for &number in &self.live {
            let mut pipe = self.clients[number].pipe.borrow_mut();
            if !pipe.has_landed() && self.random.once_in(2) {
                let all = pipe.flying.len();
                let count = self.random.one_of(&[1, 2, 7, 100, all, all]);
                pipe.arrive(count);
            }
        }
    }

    /// Clients read some bytes.
    fn read(&mut self) {
        for shard in 0..self.shards.len() {
            self.read_witnesses(shard);
        }
        for number in self.live.clone() {
            let client = &self.clients[number];
            if client.reads && self.random.once_in(2) {
                let count = if client.steady { usize::MAX } else { self.random.one_of(&[1, 50, 2_000, usize::MAX]) };
                self.read_client(number, count);
            }
        }
    }

    fn read_client(&mut self, number: usize, count: usize) {
        // While a publication is being written, a client may receive it before the witness does.
        if self.shards[self.clients[number].shard].table.is_flushing() {
            return;
        }
        let pipe = self.clients[number].pipe.borrow();
        let has_news = !pipe.waiting.is_empty() || pipe.dropped;
        drop(pipe);
        let dropped = if has_news { self.dropped() } else { Vec::new() };
        let client = &mut self.clients[number];
        client.pipe.borrow_mut().take(count, &mut client.decoder.bytes);
        for received in client.receive(&self.model, &dropped) {
            if client.silent || client.pipe.borrow().dropped {
                continue;
            }
            let reply = match received {
                Received::Ping if client.answers && !client.form.framing.is_events() => {
                    speech::frame(0x8a, &[], &mut self.random)
                }
                Received::Close(_) => {
                    client.silent = true;
                    speech::close(client.form.framing, Some(1000), &mut self.random)
                }
                _ => continue,
            };
            client.pipe.borrow_mut().flying.extend(reply);
        }
        let mut pipe = client.pipe.borrow_mut();
        let all_read = pipe.waiting.is_empty();
        pipe.end_flying |= all_read && pipe.shut;
        if all_read && pipe.dropped {
            drop(pipe);
            client.gone = true;
            self.live.retain(|&live| live != number);
            client.check_end(&self.model, &dropped);
            self.leave(number);
        }
    }

    fn read_witnesses(&mut self, shard: usize) {
        let here = &mut self.shards[shard];
        for witness in &mut here.witnesses {
            witness.pipe.borrow_mut().take(usize::MAX, &mut witness.decoder.bytes);
            for received in witness.decoder.received() {
                match received {
                    Received::Message(kind, payload, position, _) => {
                        self.model.witness(shard, kind, &payload, position);
                    }
                    Received::Told(position) => self.model.check_told(shard, position),
                    Received::Close(close) => {
                        assert_eq!(close.unwrap().0, 1001);
                        let reply = speech::close(Framing::Rfc6455, Some(1000), &mut self.random);
                        witness.pipe.borrow_mut().flying.extend(reply);
                        witness.pipe.borrow_mut().arrive(usize::MAX);
                        witness.ended = true;
                    }
                    other => panic!("a witness received {other:?}"),
                }
            }
        }
    }

    /// Whether the loop of the shard would take a turn now, without its clock.
    fn has_reason_for_turn(&self, shard: usize) -> bool {
        if self.stalled.is_some_and(|(stalled, _)| stalled == shard) {
            return false;
        }
        let here = &self.shards[shard];
        let rang = pin!(here.relay.mailbox().bell.notified())
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready();
        let clients = self.live.iter().map(|&number| &self.clients[number]).filter(|client| client.shard == shard);
        let mut pipes = clients.map(|client| &client.pipe).chain(here.witnesses.iter().map(|witness| &witness.pipe));
        let ready = pipes.any(|pipe| pipe.borrow().readable || pipe.borrow().writable);
        let waits = here.table.is_held_up() || here.relay.mailbox().requests().waiting() > 0;
        rang || ready || waits || here.table.has_work() || here.relay.has_work()
    }

    /// A shard takes a turn.
    fn turn(&mut self, shard: usize) {
        if self.stalled.is_some_and(|(stalled, _)| stalled == shard) {
            return;
        }
        let here = &mut self.shards[shard];
        // Sometimes there is an event for a client that is gone.
        let gone = (!self.clients.is_empty()).then(|| self.random.below(self.clients.len()));
        let gone = gone.filter(|&number| self.clients[number].gone && self.random.once_in(4));
        let clients = self.live.iter().copied().chain(gone).map(|number| &self.clients[number]);
        let clients = clients.filter(|client| client.shard == shard);
        let witnesses = here.witnesses.iter().map(|witness| (witness.key, &witness.pipe));
        let mut ready = Vec::new();
        for (key, pipe) in clients.map(|client| (client.key, &client.pipe)).chain(witnesses) {
            let mut pipe = pipe.borrow_mut();
            if pipe.readable || pipe.writable {
                let writable = std::mem::take(&mut pipe.writable) || self.random.once_in(4);
                let readable = std::mem::take(&mut pipe.readable);
                let ready_now = Ready { key, readable, writable, ending: pipe.is_ending() };
                ready.insert(self.random.below(ready.len() + 1), ready_now);
            }
            (pipe.readable, pipe.writable) = (false, false);
        }
        here.relay.turn(&mut here.table, self.now, ready);
        self.read_witnesses(shard);
        self.check_turn(shard);
    }

    /// Checks what must be true at the end of every turn.
    fn check_turn(&mut self, shard: usize) {
        let here = &mut self.shards[shard];
        let delivered = &self.model.delivered[shard];
        assert!(
            here.table.is_flushing()
                || delivered.iter().zip(&here.published).all(|(delivered, published)| delivered >= published),
            "staged frames are written, unless this takes several turns"
        );
        if !here.table.is_flushing() {
            here.published.clone_from(delivered);
        }
        for &number in &self.live {
            let client = &mut self.clients[number];
            if client.shard != shard {
                continue;
            }
            let session = here.table.session(client.key);
            let open = session.is_some_and(|session| session.phase() == Phase::Open);
            let is_live = session.is_some_and(|session| !session.is_catching_up());
            if let Some(session) = session {
                // A partly written frame stays, even if the queue is smaller. Gap notices are added to it. Frames before a close
                // are limited by the turn.
                let frame = client.terms.hub.message_bytes_max * 4 / 3 + ENVELOPE_BYTES;
                let queue = client.terms.hub.queue_bytes_max.max(client.queue_bytes_max).max(frame) + NOTICES_BYTES;
                let bound = if open { queue } else { queue + TURN_BYTES_MAX + 4 * RUN_FRAME_BYTES_MAX };
                // A page counts to no limit. There is one at most.
                let bound =
                    bound + if client.place.catches_up { history::page_bytes_max(&client.terms.hub) } else { 0 };
                assert!(session.waiting_bytes() <= bound, "{} bytes wait for one client", session.waiting_bytes());
            }
            client.timed_out |=
                session.is_none() && self.now >= client.open_seen_at + CLOSE_TIMEOUT.as_secs() as Seconds;
            if open {
                client.open_seen_at = self.now;
            }
            if !here.table.is_flushing() {
                client.see(open, is_live, delivered, self.now);
            }
        }
        self.check_histories(shard);
    }

    /// Time passes.
    fn tick(&mut self) {
        self.now += self.random.one_of(&[1, 1, 2, 4]);
        for shard in 0..self.shards.len() {
            self.turn(shard);
        }
    }

    /// A reload: a route gets another queue, or is removed.
    fn rebind(&mut self) {
        let number = self.random.below(self.routes.len());
        let route = &mut self.routes[number];
        if route.is_removed {
            return;
        }
        let removed = !self.exact && self.random.once_in(4);
        let mut hub = route.terms.hub.clone();
        hub.queue_messages_max = 5 + self.random.below(100);
        hub.queue_bytes_max = hub.message_bytes_max + self.random.below(10_000);
        let terms = Arc::new(Terms { hub, ..Terms::clone(&route.terms) });
        route.is_removed = removed;
        route.terms = terms.clone();
        for client in self.clients.iter_mut().filter(|client| client.terms.path == terms.path) {
            if removed {
                client.expect(1001);
            } else {
                let (messages, bytes) = client.queue_least;
                let least = (messages.min(terms.hub.queue_messages_max), bytes.min(terms.hub.queue_bytes_max));
                client.queue_least = least;
                client.queue_bytes_max = client.queue_bytes_max.max(client.terms.hub.queue_bytes_max);
                client.terms = terms.clone();
            }
        }
        for here in &mut self.shards {
            // The terms of all routes, because this reload replaces an earlier one that may be incomplete.
            let routes = self.routes.iter().map(|route| (!route.is_removed).then(|| route.terms.clone()));
            let routes: Vec<_> = self.routes.iter().map(|route| route.terms.path.clone()).zip(routes).collect();
            here.table.rebind(Box::new(move |old| match routes.iter().find(|(path, _)| *path == old.path) {
                Some((_, terms)) => terms.as_ref().map(|terms| Arc::new(Terms::clone(terms))),
                None => Some(old.clone()),
            }));
            here.relay.mailbox().bell.notify_one();
        }
    }

    /// An event for a session that may be gone, or without a reason.
    fn stray_event(&mut self, shard: usize) {
        let Some(number) = self.clients.len().checked_sub(1) else { return };
        let client = &self.clients[self.random.below(number + 1)];
        if client.shard == shard && self.stalled.is_none() {
            let mut pipe = client.pipe.borrow_mut();
            (pipe.readable, pipe.writable) = (true, true);
            drop(pipe);
            self.turn(shard);
        }
    }

    /// Everything that has begun is completed, without the clock.
    fn settle(&mut self) {
        self.stalled = None;
        for client in &mut self.clients {
            client.reads = true;
        }
        for _ in 0..100_000 {
            let mut moved = false;
            for &number in &self.live {
                let mut pipe = self.clients[number].pipe.borrow_mut();
                moved |= !pipe.has_landed();
                pipe.arrive(usize::MAX);
            }
            for shard in 0..self.shards.len() {
                if self.has_reason_for_turn(shard) {
                    moved = true;
                    self.turn(shard);
                }
            }
            for number in self.live.clone() {
                let client = &self.clients[number];
                if !client.pipe.borrow().waiting.is_empty() || client.pipe.borrow().dropped {
                    moved = true;
                    self.read_client(number, usize::MAX);
                }
                // If the server has ended its side, the client ends its own.
                let client = &self.clients[number];
                let mut pipe = client.pipe.borrow_mut();
                pipe.end_flying |= pipe.shut && !client.gone;
            }
            if !moved {
                return;
            }
        }
        panic!("the world does not settle");
    }

    /// Everything is completed; then the server ends.
    pub fn finish(&mut self) {
        if self.exact || !self.random.once_in(4) {
            self.settle();
            self.check_settled();
        } else {
            // All sessions must be closed in one turn: the witnesses are closed first, and would miss publications between their
            // close and that of the others.
            self.shards.iter_mut().for_each(|here| here.table.set_pace(Pace::default()));
        }
        self.is_ending = true;
        for client in &mut self.clients {
            client.expect(1001);
        }
        for here in &mut self.shards {
            here.table.drain(&Close::GOING_AWAY);
            here.relay.mailbox().bell.notify_one();
        }
        self.settle();
        for _ in 0..8 {
            self.now += 1;
            (0..self.shards.len()).for_each(|shard| self.turn(shard));
            self.settle();
        }
        self.check_end();
    }

    fn check_settled(&mut self) {
        let (mut missed, dropped) = (0, self.dropped());
        for client in &mut self.clients {
            let session = self.shards[client.shard].table.session(client.key);
            if let Some(session) = session.filter(|session| session.phase() == Phase::Open) {
                assert_eq!(session.waiting_bytes(), 0, "everything was read");
                assert_eq!(session.held(), Default::default(), "an idle session holds nothing");
                assert!(!session.is_catching_up(), "client {} does not catch up", client.number);
                client.check_settled(&self.model, &dropped, self.now);
            }
            if let Some(Some((1002 | 1007 | 1009, reason))) = &client.close {
                assert!(client.gone, "its connection was not ended after {reason:?}");
            }
            missed += client.missed;
        }
        for (shard, delivered) in self.model.delivered.iter().enumerate() {
            let whole: Vec<_> = self.model.order.iter().map(Vec::len).collect();
            assert_eq!(*delivered, whole, "shard {shard} has delivered everything");
        }
        let clients = &self.clients;
        let pending = self.model.pending_of(|source| match source {
            Source::Outside(_) => true,
            Source::Client(number) => !clients[number].ended,
        });
        for (shard, here) in self.shards.iter().enumerate() {
            assert!(!here.relay.owner().has_questions(), "shard {shard} has not answered all questions");
        }
        assert!(pending.is_empty(), "published, and never received: {pending:?}");
        let dropped: u64 = self.counters(|counters| counters.dropped.value());
        if self.exact {
            assert_eq!(missed, dropped, "messages missed, and messages counted as dropped");
        }
    }

    fn counters(&self, figure: impl Fn(&pushd::shard::counters::Counters) -> u64) -> u64 {
        self.shards.iter().map(|shard| figure(&shard.relay.mailbox().counters)).sum()
    }

    /// Checks that nothing is left.
    fn check_end(&self) {
        for client in &self.clients {
            assert!(client.gone, "client {} is still there", client.number);
        }
        for here in &self.shards {
            assert!(here.table.is_empty() && !here.table.has_work(), "{} sessions are left", here.table.len());
            assert!(here.witnesses.iter().all(|witness| witness.ended && witness.pipe.borrow().dropped));
            assert!(
                here.relay.mailbox().deliveries().pop().is_none() && here.relay.mailbox().requests().pop().is_none()
            );
        }
        assert_eq!(self.counters(|counters| counters.channels.value()), 0, "channels are left");
        assert_eq!(self.counters(|counters| counters.sessions.value()), 0);
        assert!(self.members.iter().all(|members| members.count() == 0), "members are left");
        self.check_receipts();
    }

    /// Checks that every receipt has been called once, with the number of subscribers and the position, and for a message whose key
    /// was known with those of the first one.
    fn check_receipts(&self) {
        let outcome = |number: usize| {
            let receipt = self.model.messages[number].receipt.as_ref()?.lock().unwrap();
            assert_eq!(receipt.len(), 1, "a receipt was called with {receipt:?}");
            Some(receipt[0])
        };
        for (number, message) in self.model.messages.iter().enumerate() {
            let Some(Outcome { subscribers, position, is_refused }) = outcome(number) else { continue };
            if let Some(first) = message.repeats {
                assert_eq!(
                    outcome(first),
                    outcome(number),
                    "{number} repeats {first}, and is answered in the same way"
                );
                continue;
            }
            let (least, most) = self.subscribers(number);
            assert!((least..=most).contains(&subscribers), "{subscribers} not in {least}..={most} for {number}");
            // What is published when the server ends may reach no witness.
            let is_witnessed = message.position.is_some() || !self.is_ending;
            let offset = position.map(|position| position.offset).filter(|_| is_witnessed);
            assert_eq!(offset, message.offset, "the position of {number}");
            assert!(!is_refused);
        }
    }

    /// How many subscribers a message certainly and possibly had.
    fn subscribers(&self, number: usize) -> (u64, u64) {
        let message = &self.model.messages[number];
        let (Some(position), Some(channel)) = (message.position, message.channel) else { return (0, 0) };
        let delivered = |shard: usize| self.model.delivered[shard][channel];
        let witnesses = (0..self.shards.len()).filter(|&shard| position < delivered(shard)).count() as u64;
        let (mut least, mut most) = (witnesses, witnesses);
        let here = self.clients.iter().filter(|client| position < delivered(client.shard));
        for client in here.filter(|client| self.model.carries(client.form, number)) {
            for subscription in client.subscriptions.iter().filter(|s| s.channel == channel) {
                let (certainly, possibly) = subscription.is_counted(position);
                least += u64::from(certainly);
                most += u64::from(possibly);
            }
        }
        (least, most)
    }
}

fn arrival(
    framing: Framing,
    terms: Arc<Terms>,
    selectors: Vec<Selector>,
    to: Arc<str>,
    since: Option<Since>,
) -> Option<Arrival> {
    let membership = terms.members.join(terms.hub.subscribers_max.map_or(usize::MAX, usize::from))?;
    let inflates = framing == Framing::Deflate;
    let (head, greeting, early) = (Bytes::new(), None, Bytes::new());
    let channels = selectors.into();
    Some(Arrival {
        framing,
        inflates,
        terms,
        membership,
        channels,
        since,
        poll: None,
        identity: None,
        granted: None,
        to,
        head,
        greeting,
        early,
    })
}

/// The size of a message: mostly small, sometimes at a limit of the lengths in a header, of frames that are copied into a run, or
/// of the hub.
fn size(limit: usize, random: &mut Random) -> usize {
    let border = random.one_of(&[125, 126, RUN_FRAME_BYTES_MAX, 65_535, 65_536, limit]);
    let size = match random.below(30) {
        0 => border,
        1 => random.below(3_000),
        _ => random.below(100),
    };
    size.min(limit)
}
