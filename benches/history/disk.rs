//! What the disk allows: the time to write some bytes and to sync them, one after the other.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crate::subject::directory;
use crate::{Scale, quantile};

/// The length of the file that is overwritten.
const FILE_BYTES: u64 = 64 << 20;

/// Prints the times for these numbers of bytes.
pub fn run(scale: Scale, sizes: &[usize]) {
    let place = directory();
    println!(
        "\n| bytes | append and fdatasync, p50 ms, p99 ms | overwrite and fdatasync, p50 ms, p99 ms |\n|---:|---|---|"
    );
    for &size in sizes {
        let rounds = scale.pick(3, 20, 300).min(FILE_BYTES as usize / size);
        let appended = File::create(place.path().join("appended")).unwrap();
        let mut growing = times(&appended, size, rounds);
        let whole = File::create(place.path().join("whole")).unwrap();
        for at in 0..FILE_BYTES >> 20 {
            whole.write_all_at(&vec![0; 1 << 20], at << 20).unwrap();
        }
        whole.sync_all().unwrap();
        let mut overwriting = times(&whole, size, rounds);
        let [a, b, c, d] = [
            quantile(&mut growing, 0.5),
            quantile(&mut growing, 0.99),
            quantile(&mut overwriting, 0.5),
            quantile(&mut overwriting, 0.99),
        ];
        println!("| {size} | {a:.2}, {b:.2} | {c:.2}, {d:.2} |");
    }
}

fn times(file: &File, size: usize, rounds: usize) -> Vec<Duration> {
    let bytes = vec![b'x'; size];
    let one = |round: usize| {
        let began = Instant::now();
        file.write_all_at(&bytes, (round * size) as u64).unwrap();
        file.sync_data().unwrap();
        began.elapsed()
    };
    (0..rounds).map(one).collect()
}
