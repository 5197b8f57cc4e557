//! The cost of a page from the cache, counted in allocations: their number is fixed, whatever the size of the page. And
//! an edited page is sent at once. There is only one test in this file, because the count is for the whole process.

#![allow(unsafe_code, reason = "a global allocator that counts needs it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Response, Uri};
use http_body_util::BodyExt;
use pushd::config::Static;
use pushd::http::body::Body;
use pushd::http::pages::{self, Pages};

/// Long enough for a loaded machine. A page is cached two seconds after its last change.
const DEADLINE: Duration = Duration::from_secs(60);

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all calls are forwarded unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same as the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above, and so from the system.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

struct Ask {
    pages: std::sync::Arc<Pages>,
    uri: Uri,
    headers: HeaderMap,
}

impl Ask {
    fn at_hand(&self) -> Option<Response<Body>> {
        pages::at_hand(&self.pages.ask(&Method::GET, &self.uri, &self.headers, &self.uri.path()[1..]))
    }

    async fn body(&self) -> Vec<u8> {
        let ask = self.pages.ask(&Method::GET, &self.uri, &self.headers, &self.uri.path()[1..]);
        let answer = pages::respond(&self.pages, &pages::Files::default(), &ask).await;
        assert_eq!(answer.status(), 200);
        answer.into_body().collect().await.unwrap().to_bytes().to_vec()
    }

    /// Requests the page until it is cached.
    async fn until_cached(&self) {
        let began = Instant::now();
        while self.at_hand().is_none() {
            self.body().await;
            assert!(
                began.elapsed() < DEADLINE,
                "never cached: is the temporary directory on a file system of this machine?"
            );
            // Polled up to the deadline: a page that has just changed is not cached yet.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn a_cached_page_costs_the_same_whatever_its_size_and_an_edit_is_sent_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().to_path_buf();
    let asks = ["small", "large"].map(|name| Ask {
        pages: Pages::new(&Static { index: Vec::new(), ..Static::plain(root.clone()) }),
        uri: format!("/{name}").parse().unwrap(),
        headers: HeaderMap::from_iter([(http::header::HOST, "here".parse().unwrap())]),
    });
    let large = vec![b'x'; 200 << 10];
    std::fs::write(root.join("small"), "small").unwrap();
    std::fs::write(root.join("large"), &large).unwrap();
    let mut costs = Vec::new();
    for ask in &asks {
        ask.until_cached().await;
        // The first responses create what all later ones share.
        assert!((0..3).all(|_| ask.at_hand().is_some()));
        // Other threads of the test harness may allocate meanwhile, so the smallest of several counts is that of the
        // response.
        let count = (0..100).map(|_| {
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            assert!(ask.at_hand().is_some());
            ALLOCATIONS.load(Ordering::Relaxed) - before
        });
        costs.push(count.min().unwrap());
    }
    println!("allocations: {costs:?}");
    assert_eq!(costs[0], costs[1], "allocations for 5 bytes and for 200 KiB");
    assert!(costs[0] <= 2, "{costs:?} allocations: more than the two of the header");

    assert_eq!(asks[1].body().await, large);
    std::fs::write(root.join("small"), "SMALL").unwrap();
    assert_eq!(asks[0].body().await, b"SMALL");
}
