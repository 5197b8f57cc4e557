//! What the README and the pages of `docs` show is true: their configurations are good files, and their links lead somewhere.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pushd::config;

/// Every page, with its text.
fn pages() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = root.join("docs").read_dir().unwrap().map(|entry| entry.unwrap().path());
    let pages = docs.chain([root.join("README.md")]).filter(|path| path.extension().is_some_and(|e| e == "md"));
    let pages: Vec<_> = pages.map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect();
    assert!(pages.len() > 3, "{pages:?}");
    pages
}

#[test]
fn the_configurations_shown_are_good() {
    let mut routes = 0;
    for (page, text) in pages() {
        let blocks = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        for whole in blocks.filter(|block| block.contains(".routes]")) {
            let config = config::parse(&page, whole).unwrap_or_else(|errors| panic!("{errors}"));
            assert!(config.warnings.is_empty(), "{}", config.warnings[0]);
            routes += config.servers.iter().map(|server| server.routes.len()).sum::<usize>();
        }
    }
    assert!(routes > 8, "{routes}");
}

#[test]
fn links_lead_somewhere() {
    let mut followed = 0;
    for (page, text) in pages() {
        let links = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
        for link in links.filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link}", page.display());
            let anchor = |line: &str| line.trim_start_matches(['#', ' ']).to_lowercase().replace(' ', "-");
            let found = heading.is_empty()
                || std::fs::read_to_string(&target)
                    .unwrap()
                    .lines()
                    .any(|line| line.starts_with('#') && anchor(line) == heading);
            assert!(found, "{}: {link}", page.display());
            followed += 1;
        }
    }
    assert!(followed > 15, "{followed}");
}

#[test]
fn every_page_is_reached_from_the_readme() {
    let readme = include_str!("../README.md");
    let names = pages().into_iter().map(|(page, _)| page.file_name().unwrap().to_str().unwrap().to_owned());
    let lost: BTreeSet<_> =
        names.filter(|name| name != "README.md" && !readme.contains(&format!("(docs/{name})"))).collect();
    assert_eq!(lost, BTreeSet::new());
}
