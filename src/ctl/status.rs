//! `pushctl status`: shows whether pushd runs, and a few of its metrics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use clap::Args;
use http::Method;

use super::dial::{self, Answer};
use super::fault::Fault;
use super::instance::{HINT, Held, Instance};
use super::url::{Address, Url};
use super::{NOT_RUNNING, Outcome, block_on, notice, print};
use crate::config::{self, Action, Config, Listen};
use crate::daemon::exit::Exit;

/// The lines shown: a word, the metric, and a comment.
const FIGURES: [(&str, &str, &str); 5] = [
    ("connections", "pushd_connections_accepted_total", "accepted"),
    ("sessions", "pushd_sessions", "open"),
    ("channels", "pushd_channels", "with subscribers, once for each worker"),
    ("publications", "pushd_publications_total", "in all"),
    ("deliveries", "pushd_deliveries_total", "in all"),
];

/// Say whether pushd runs (exit code 0) or not (3), and a few figures from its metrics
#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    instance: Instance,

    /// Its metrics, as in http://127.0.0.1:8888/metrics [default: found in the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<Url>,
}

impl Status {
    pub fn run(&self) -> Outcome {
        let found = self.instance.find()?;
        let held = match found.held() {
            Err(fault) if fault.code == Exit::NoPermission.code() => return self.ask(fault),
            held => held?,
        };
        match held {
            Held::Not => {
                print(&format!("{}. {HINT}\n", found.not_running()))?;
                return Ok(NOT_RUNNING);
            }
            Held::WithoutNumber => {
                print(&format!("pushd is starting (it holds {})\n", found.pidfile.display()))?;
                return Ok(Exit::Clean.code());
            }
            Held::By(_) if let Some(other) = found.runs_on_another() => {
                print(&format!("pushd does not run on it: {other}\n"))?;
                return Ok(NOT_RUNNING);
            }
            Held::By(pid) => print(&format!("pushd is running, PID {pid} ({})\n", found.pidfile.display()))?,
        }
        // A failure to get the metrics does not change the exit code.
        match self.url.clone().or_else(|| self.url_from_config()) {
            Some(url) => block_on(async move {
                match metrics(&url).await {
                    Ok(text) => print(&figures(&text))?,
                    Err(fault) => notice(&format!("no figures: {}", fault.message)),
                }
                Ok(Exit::Clean.code())
            }),
            None => Ok(Exit::Clean.code()),
        }
    }

    /// If this user may not read the pidfile, a server that answers proves that pushd runs.
    fn ask(&self, fault: Fault) -> Outcome {
        let Some(url) = self.url.clone().or_else(|| self.url_from_config()) else { return Err(fault) };
        block_on(async move {
            match metrics(&url).await {
                Ok(text) => {
                    notice(&fault.message);
                    print(&format!("pushd answers at {url}\n{}", figures(&text)))?;
                    Ok(Exit::Clean.code())
                }
                Err(_) => Err(fault),
            }
        })
    }

    fn url_from_config(&self) -> Option<Url> {
        config::load(&self.instance.config_file()?).ok().as_ref().and_then(metrics_url)
    }
}

async fn metrics(url: &Url) -> Result<String, Fault> {
    let Answer { status, retry_after, body } =
        dial::exchange(url, dial::request(Method::GET, url), bytes::Bytes::new()).await?;
    match status.is_success() {
        true => Ok(String::from_utf8_lossy(&body).into_owned()),
        false => Err(Fault::failed(format!("{url}: {}", dial::refusal(status, retry_after.as_deref(), &body)))),
    }
}

/// The metrics route of the first server that has one and can be reached.
fn metrics_url(config: &Config) -> Option<Url> {
    // A certificate is for the public name of a server, not for the address that it is reached by here.
    config.servers.iter().filter(|server| server.tls.is_none()).find_map(|server| {
        let route = server.routes.iter().find(|route| route.action == Action::Metrics)?;
        let address = server.listen.iter().find_map(|listen| match listen {
            Listen::Tcp(address) if address.port() != 0 => Some(reachable(*address)),
            Listen::Unix(path) => Some(Address::Unix(path.clone())),
            _ => None,
        })?;
        Some(Url { address, tls: false, path: route.pattern.text().to_owned() })
    })
}

/// A listener on all addresses is reached by the loopback address.
fn reachable(address: SocketAddr) -> Address {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    Address::Tcp(ip.to_string(), address.port())
}

/// The lines for those metrics that are present.
fn figures(text: &str) -> String {
    let line = |(word, metric, kind): (&str, &str, &str)| {
        sum(text, metric).map(|value| format!("  {word:<13}{value:>10}  {kind}\n"))
    };
    let lines: String = FIGURES.into_iter().filter_map(line).collect();
    if lines.is_empty() { "  none of pushd's figures are among the metrics\n".to_owned() } else { lines }
}

/// The sum of a metric over all its labels; `None` if it is not present.
fn sum(text: &str, metric: &str) -> Option<u64> {
    let samples = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(metric)?;
        let value = match rest.strip_prefix('{') {
            // The value of a label may contain spaces and braces. There are none after the last brace.
            Some(labelled) => labelled.rsplit_once('}')?.1,
            None => rest.strip_prefix(' ')?,
        };
        value.split_whitespace().next()?.parse::<u64>().ok()
    });
    samples.fold(None, |sum: Option<u64>, value| Some(sum.unwrap_or(0).saturating_add(value)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels() {
        let text = "# HELP pushd_sessions x\npushd_sessions{hub=\"a } 9\"} 2\npushd_sessions{hub=\"b\"} 3 1700000000\n\
                    pushd_sessions_opened_total 70\npushd_channels 0\npushd_odd NaN\n";
        assert_eq!(sum(text, "pushd_sessions"), Some(5));
        assert_eq!(sum(text, "pushd_channels"), Some(0));
        assert_eq!(sum(text, "pushd_deliveries_total"), None);
        assert_eq!(sum(text, "pushd_odd"), None);
        let shown = figures(text);
        assert_eq!(shown.lines().count(), 2, "{shown}");
        assert!(shown.contains("sessions              5  open"), "{shown}");
    }

    #[test]
    fn the_metrics_route_is_found_in_the_configuration() {
        let url = |listen: &str, route: &str| {
            let text = format!(
                "[server.a]\nlisten = \"127.0.0.1:1\"\n[server.a.routes]\n\"/\" = {{ health = true }}\n\
                 [server.b]\nlisten = {listen}\n[server.b.routes]\n{route}\n"
            );
            let config = config::parse(Path::new("/etc/pushd/x.toml"), &text).unwrap_or_else(|why| panic!("{why}"));
            metrics_url(&config).map(|url| url.to_string())
        };
        let route = "\"/m\" = { metrics = true }";
        assert_eq!(url("\"127.0.0.1:8888\"", route).unwrap(), "http://127.0.0.1:8888/m");
        assert_eq!(url("\"[::]:8888\"", route).unwrap(), "http://[::1]:8888/m");
        assert_eq!(url("[\"systemd:x\", \"0.0.0.0:80\"]", route).unwrap(), "http://127.0.0.1:80/m");
        assert_eq!(url("\"unix:s\"", route).unwrap(), "unix:/etc/pushd/s:/m");
        assert_eq!(url("\"127.0.0.1:8888\"", "\"/m\" = { health = true }"), None);
        let shipped = config::parse(Path::new("/etc/pushd/config.toml"), config::DEFAULT).unwrap();
        assert_eq!(metrics_url(&shipped).unwrap().to_string(), "http://127.0.0.1:8888/metrics");
    }
}
