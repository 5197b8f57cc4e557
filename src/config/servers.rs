//! `[server.NAME]`: addresses and a table of routes.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use super::access::AccessKeys;
use super::addresses;
use super::fields;
use super::hooks::Hooks;
use super::hubs::Hubs;
use super::keys;
use super::reader::{Item, Table};
use super::report::{Problem, Report, Span};
use super::routes::Routes;
use super::sharing::{self, Addresses};
use super::static_route;
use super::tokens::TokenTables;
use super::{Action, Hosts, Listen, Origins, Route, Tls};

/// `[server.NAME]`: a set of addresses with one table of routes.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// NAME in `[server.NAME]`.
    pub name: String,
    /// The addresses it listens on. Empty: it shares those of another server.
    pub listen: Vec<Listen>,
    /// The name of the server whose addresses it shares.
    pub shares: Option<String>,
    /// What each path serves, in the order of the file.
    pub routes: Vec<Route>,
    /// Which web pages may connect and publish, unless a route has its own list.
    pub origins: Origins,
    /// The host names it answers to.
    pub hosts: Hosts,
    /// Further header fields of all answers but those by which sessions begin: names in lower case, with their values.
    pub headers: Vec<(String, String)>,
    /// How long a client may take to send a request's header.
    pub header_timeout: Duration,
    /// How long a client may take to send a request's body.
    pub body_timeout: Duration,
    /// How long a connection may wait for its next request.
    pub keep_alive: Duration,
    /// The maximum number of connections; `None`: that of the process.
    pub connections_max: Option<NonZeroUsize>,
    /// The certificates; `None`: plain HTTP.
    pub tls: Option<Tls>,
    /// The port of https to which every request is sent. Then it has no routes. `None`: none is.
    pub redirects: Option<u16>,
}

/// An address that is listed already, by which server and where.
type Again<'a> = (Item<'a>, (usize, Span));
/// The words of `redirect`.
pub(super) const REDIRECT: [(&str, bool); 1] = [("https", true)];

/// Reads every `[server.NAME]`.
pub(super) struct Servers<'r, 'a> {
    /// Where problems are reported.
    pub(super) report: &'r Report<'a>,
    /// The hubs that routes may name.
    pub(super) hubs: &'r Hubs<'a>,
    /// The keys that routes may name.
    pub(super) access: &'r AccessKeys<'a>,
    /// The tokens that routes may name.
    pub(super) tokens: &'r TokenTables<'a>,
    /// The hooks that routes may name.
    pub(super) hooks: &'r Hooks<'a>,
    /// The addresses in use so far, of all servers.
    pub(super) addresses: Addresses,
    /// For each port, of IPv4 or IPv6: the location that listens on all addresses, and the first that listens on a single one.
    pub(super) ports: HashMap<(bool, u16), [Option<Span>; 2]>,
    /// The routes of all servers so far, each with the location of its path.
    pub(super) routes: Vec<(Span, Route)>,
}

impl<'a> Servers<'_, 'a> {
    /// Reads all servers. Their routes are returned with the locations of their paths, too.
    pub(super) fn read(mut self, top: &Table<'a>) -> (Vec<Server>, Vec<(Span, Route)>) {
        let items = top.named("server");
        if items.is_empty() && top.item("server").is_none_or(|item| item.is_table() && item.members().is_empty()) {
            let problem = Problem::whole("no server is configured, so pushd would listen on no address").absence();
            self.report.note(problem.help("`env pushd --print-default-config` prints a file with one"));
        }
        let mut servers: Vec<Server> = items.into_iter().filter_map(|item| self.server(item)).collect();
        let ports = servers.iter().filter(|server| server.tls.is_some()).flat_map(|server| &server.listen);
        let port =
            ports.filter_map(|listen| if let Listen::Tcp(tcp) = listen { Some(tcp.port()) } else { None }).next();
        servers.iter_mut().filter_map(|server| server.redirects.as_mut()).for_each(|to| *to = port.unwrap_or(*to));
        (servers, self.routes)
    }

    fn server(&mut self, item: Item<'a>) -> Option<Server> {
        item.note_bad_name();
        let table = item.table(&keys::SERVER)?;
        let (mut listen, again) = self.listen(&table);
        let hosts = table.item("hosts").and_then(addresses::hosts).unwrap_or(Hosts::Listed(Vec::new()));
        let shares = self.addresses.end(&table, item.key(), &listen, &hosts, again);
        let origins = table.value("origins", |item| addresses::origins(*item));
        let help = format!("add a table of what it serves: `[server.{}.routes]`", item.key());
        let redirects = table.item("redirect").and_then(|item| item.choice(&REDIRECT)).unwrap_or(false);
        let item_of_routes = match table.item("routes") {
            None if redirects => None,
            _ => table.required("routes", &help),
        };
        if let Some(item) = item_of_routes.filter(|_| redirects) {
            let problem = Problem::error(item.key_span(), "`routes` cannot be used with `redirect`");
            item.note(problem.label("every request is sent to https").help("remove one of the two"));
        }
        let routes = item_of_routes.map(|item| {
            let (hubs, access, tokens, hooks) = (self.hubs, self.access, self.tokens, self.hooks);
            let origins = origins.clone();
            Routes { hubs, access, tokens, hooks, origins, read: Vec::new(), taken: HashMap::new() }.read(item)
        });
        let mut server = Server {
            shares,
            name: item.key().to_owned(),
            origins,
            hosts,
            headers: table.item("headers").map(fields::read).unwrap_or_default(),
            header_timeout: table.duration("header_timeout"),
            body_timeout: table.duration("body_timeout"),
            keep_alive: table.duration("keep_alive"),
            connections_max: table.item("connections_max").and_then(|i| i.positive()),
            tls: table.item("tls").and_then(|item| item.tls()),
            redirects: redirects.then_some(443),
            routes: routes.iter().flatten().map(|(_, route)| route.clone()).collect(),
            listen: std::mem::take(&mut listen),
        };
        let mut routes = if redirects { Vec::new() } else { routes? };
        self.warn_open(&server, &routes);
        if server.tls.is_none() {
            static_route::warn_unencrypted(self.report, &server.listen, &routes);
        }
        if let Some(item) = table.item("tls").filter(|_| server.shares.is_some()) {
            let problem = Problem::error(item.key_span(), "`tls` belongs to the first server with these addresses");
            item.note(
                problem.help(
                    "add the certificate to the list of that server: the name that a client asks for chooses one",
                ),
            );
        }
        if server.shares.is_some() {
            server.listen.clear();
        }
        self.routes.append(&mut routes);
        Some(server)
    }

    /// Its addresses, and those among them that are listed already.
    fn listen(&mut self, table: &Table<'a>) -> (Vec<Listen>, Vec<Again<'a>>) {
        let items = table.required("listen", "for example `listen = \"127.0.0.1:8888\"`").and_then(Item::strings);
        let (mut listen, mut again) = (Vec::new(), Vec::new());
        for item in items.unwrap_or_default() {
            match addresses::listen(item.as_text().unwrap_or_default(), item.base()) {
                Ok(address) => {
                    again.extend(self.take(&item, &address));
                    listen.push(address);
                }
                Err(help) => item.note(
                    item.error("this is not an address to listen on")
                        .label("expected an address and a port")
                        .help(help),
                ),
            }
        }
        (listen, again)
    }

    /// Takes an address. Returns it if it is listed already.
    fn take(&mut self, item: &Item<'a>, address: &Listen) -> Option<Again<'a>> {
        // For port 0 the system chooses a new port each time.
        if matches!(address, Listen::Tcp(address) if address.port() == 0) {
            return None;
        }
        if let Err(taken) = self.addresses.take(address, item.span()) {
            return Some((*item, taken));
        }
        if let Some(other) = sharing::overlap(&mut self.ports, address, item.span()) {
            sharing::note_overlap(item, other);
        }
        None
    }

    /// Warns of routes where every program of other machines may publish.
    fn warn_open(&self, server: &Server, routes: &[(Span, Route)]) {
        let open = server.listen.iter().find_map(|listen| match listen {
            Listen::Tcp(address) if !address.ip().to_canonical().is_loopback() => Some(address),
            _ => None,
        });
        let Some(address) = open else { return };
        let is_open = |action: &Action| matches!(action, Action::Publish(publish) if publish.keys.is_none() && publish.tokens.is_none());
        for (span, route) in routes.iter().filter(|(_, route)| is_open(&route.action)) {
            let title = format!("every client that reaches {address} may publish at `{}`", route.pattern);
            let problem = Problem::warning(span.clone(), title).label("open to other machines");
            self.report.note(
                problem.help(
                    "add `keys` or `tokens` to the route, or move it to a server of its own on 127.0.0.1 or on a Unix socket",
                ),
            );
        }
    }
}
