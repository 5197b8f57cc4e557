//! The tables: medians over the repetitions, and ratios of pairs that were measured one after the other.

use pushd::ctl::bench::{Cost, Figures};

use super::mode::Row;

/// The columns after the ratios.
const COLUMNS: &str = "CPU µs/delivery | p50 ms | p99 ms | B/connection | CPU µs/handshake | others |";

/// The table of one load. It has a column of ratios for each row that is a base.
pub fn of(title: &str, connections: usize, rows: &[Row], runs: &[Vec<Figures>]) -> String {
    let bases: Vec<(&str, usize)> =
        rows.iter().enumerate().filter_map(|(at, row)| Some((row.base.as_deref()?, at))).collect();
    let names: String = bases.iter().map(|(name, _)| format!(" {name} |")).collect();
    let rules = "---:|".repeat(bases.len() + 7);
    let mut table = format!("{title}\n\n| server | deliveries/s |{names} {COLUMNS}\n|---|{rules}\n");
    for (row, own) in rows.iter().zip(runs) {
        let of = |figure: fn(&Figures) -> f64| median(own.iter().map(figure));
        let cost = |figure: fn(&Cost) -> f64| median(own.iter().filter_map(|run| run.server.as_ref()).map(figure));
        // Compared repetition by repetition: a disturbance most likely affects both servers of a pair.
        let to = |base: usize| {
            let pairs = own.iter().zip(&runs[base]);
            median(pairs.map(|(own, base)| own.deliveries_per_second / base.deliveries_per_second))
        };
        let ratios: String = bases.iter().map(|&(_, base)| format!(" {:.2} |", to(base))).collect();
        let others = own.iter().filter_map(|run| run.server).map(|cost| cost.processors_of_others);
        // Memory is allocated in pages, so with few connections the last page would distort the result.
        let resident = match connections {
            0..1000 => "-".to_owned(),
            _ => format!("{:.0}", cost(|cost| cost.resident_bytes_per_connection)),
        };
        table += &format!(
            "| {} | {} |{ratios} {:.2} | {:.2} | {:.2} | {} | {:.0} | {:.2} |\n",
            row.name,
            grouped(of(|run| run.deliveries_per_second)),
            cost(|cost| cost.cpu_us_per_delivery),
            of(|run| run.latency.p50_ms),
            of(|run| run.latency.p99_ms),
            resident,
            cost(|cost| cost.cpu_us_per_handshake),
            others.fold(0.0, f64::max),
        );
    }
    table
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// Groups thousands: `1 234 567`.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let groups = digits.char_indices().map(|(i, digit)| match (digits.len() - i) % 3 {
        0 if i > 0 => format!(" {digit}"),
        _ => digit.to_string(),
    });
    groups.collect()
}
