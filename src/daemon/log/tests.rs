//! The whole log, from the facade to the file, without installing it as the logger of this process.

use std::fs;
use std::path::Path;

use ::log::Log as _;

use super::*;
use crate::config::{Log, LogFormat};

const LONG: Duration = Duration::from_secs(10);

fn config(path: &Path) -> Log {
    let target = Some(LogTarget::File(path.to_path_buf()));
    Log { target, level: LevelFilter::Info, format: LogFormat::Text, rotate: None, access: None }
}

fn context() -> LogContext {
    LogContext { foreground: false, prefix: "pushd".to_string(), behalf: Behalf::default() }
}

fn log_line(front: &Front, text: &str) {
    front.queue.push(Line::new(Level::Info, "test", text.to_string()));
}

fn texts(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split_once("] ").map_or(line, |(_, text)| text).to_string()).collect()
}

#[test]
fn the_log_begins_with_log_opened_and_keeps_the_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let (handle, front) = start(&config(&path), context(), 100_000).unwrap();
    for number in 0..1000 {
        log_line(&front, &number.to_string());
    }
    assert!(handle.flush(LONG));
    let found = texts(&path);
    assert!(found[0].starts_with("Log opened"), "{found:?}");
    assert_eq!(found[1..], (0..1000).map(|number| number.to_string()).collect::<Vec<_>>());
    log_line(&front, "last");
    drop(handle);
    assert_eq!(texts(&path).last().unwrap(), "last");
}

#[test]
fn after_reopening_nothing_is_written_to_the_moved_file() {
    let dir = tempfile::tempdir().unwrap();
    let (path, moved) = (dir.path().join("a.log"), dir.path().join("moved"));
    let (handle, front) = start(&config(&path), context(), 100).unwrap();
    log_line(&front, "before");
    assert!(handle.flush(LONG));
    fs::rename(&path, &moved).unwrap();
    log_line(&front, "between");
    handle.reopen();
    log_line(&front, "after");
    assert!(handle.close(LONG));
    // `between` and `after` may share a batch, which is written before the order is carried out.
    assert_eq!(texts(&moved)[1..3], ["before", "between"]);
    assert!(texts(&path)[0].starts_with("Log opened"));
}

#[test]
fn a_new_configuration_is_applied_and_a_bad_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("a.log"), dir.path().join("b.log"));
    let (mut handle, front) = start(&config(&first), context(), 100).unwrap();
    let bad = handle.reconfigure(&config(Path::new("/nonexistent/b.log"))).unwrap_err();
    assert_eq!(bad.exit, Exit::CannotCreate);
    log_line(&front, "still here");
    assert!(handle.flush(LONG));
    assert_eq!(texts(&first).last().unwrap(), "still here");

    handle.reconfigure(&Log { format: LogFormat::Json, ..config(&first) }).unwrap();
    assert!(handle.flush(LONG));
    log_line(&front, "as json");
    assert!(handle.flush(LONG));
    let text = fs::read_to_string(&first).unwrap();
    let value: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(value["message"], "as json");

    handle.reconfigure(&config(&second)).unwrap();
    assert!(handle.flush(LONG));
    log_line(&front, "elsewhere");
    assert!(handle.close(LONG));
    assert_eq!(texts(&second)[1], "elsewhere");
}

#[test]
fn the_number_of_lost_lines_is_logged_once_writing_works_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let destination = Destination::File("/dev/full".into(), Behalf::default());
    let queue = Arc::new(Queue::new(2));
    for text in ["lost to the disk", "lost to the disk, too", "refused by the queue"] {
        queue.push(Line::new(Level::Info, "test", text.to_string()));
    }
    let full = Sink::open(&destination, LogFormat::Text, None).unwrap();
    let writer = thread::spawn({
        let writer = Writer::new(Arc::clone(&queue), full);
        move || writer.run()
    });
    let (done, flushed) = channel();
    queue.order(Order::Flush(done));
    flushed.recv_timeout(LONG).unwrap();
    let working = Sink::open(&Destination::File(path.clone(), Behalf::default()), LogFormat::Text, None).unwrap();
    queue.order(Order::Replace(Box::new(working)));
    let (done, closed) = channel();
    queue.push(Line::new(Level::Info, "test", "written".to_string()));
    queue.order(Order::Flush(done.clone()));
    wait_for(&closed);
    queue.push(Line::new(Level::Info, "test", "written again".to_string()));
    queue.order(Order::Close(done));
    wait_for(&closed);
    writer.join().unwrap();
    let found = texts(&path);
    assert!(found[0].starts_with("Log opened"));
    // The first line and two more on the full disk, one refused by the queue, and perhaps `written` with them.
    let report = found.iter().find(|line| line.contains("log lines were lost")).expect("the loss is reported");
    let number: u32 = report.split(' ').next().unwrap().parse().unwrap();
    assert!((4..=5).contains(&number), "{report}");
    assert_eq!(found.last().unwrap(), "written again");
}

fn wait_for(done: &std::sync::mpsc::Receiver<()>) {
    done.recv_timeout(LONG).expect("the writer answers");
}

#[test]
fn other_crates_are_logged_only_from_level_warn_on() {
    let queue = Arc::new(Queue::new(10));
    let front = Front { queue: Arc::clone(&queue) };
    // The facade's level applies to the whole process. No other test here relies on it.
    ::log::set_max_level(LevelFilter::Info);
    for (module, level) in [
        ("hyper::proto", Level::Info),
        ("hyper::proto", Level::Warn),
        ("pushd::hub", Level::Info),
        ("pushd::hub", Level::Debug),
    ] {
        let mut record = Record::builder();
        record.level(level).target(module).module_path_static(Some(module));
        front.log(&record.args(format_args!("x")).build());
    }
    let logged: Vec<_> = queue.take(None).lines.iter().map(|line| (line.target.to_string(), line.level)).collect();
    assert_eq!(logged, [("hyper".to_string(), Level::Warn), ("hub".to_string(), Level::Info)]);
}

#[test]
fn the_default_target_is_a_file_for_a_daemon_and_standard_error_otherwise() {
    let unset = Log { target: None, level: LevelFilter::Info, format: LogFormat::Text, rotate: None, access: None };
    let base = Path::new("/run/here");
    assert_eq!(
        destination(&unset, &context(), base),
        Destination::File("/run/here/pushd.log".into(), Behalf::default())
    );
    let foreground = LogContext { foreground: true, ..context() };
    assert_eq!(destination(&unset, &foreground, base), Destination::Stderr);
}
