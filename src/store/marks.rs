//! The marks of feeds: from where a feed continues after its last message that is written. A mark is written in the transaction of its
//! message.

use rusqlite::{Connection, Result, params};

use super::schema::mark_sum;
use crate::hub::Progress;

/// Keeps a mark, in the place of an older one. `offset`: of the message that it was written with.
pub(super) fn save(db: &Connection, hub: u16, feed: &str, offset: u64, mark: &[u8]) -> Result<()> {
    let sum = mark_sum(i64::from(hub), feed, offset as i64, mark);
    db.prepare_cached(
        "INSERT INTO marks(hub, feed, offset, mark, sum) VALUES(?1, ?2, ?3, ?4, ?5)
         ON CONFLICT(hub, feed) DO UPDATE SET offset = excluded.offset, mark = excluded.mark, sum = excluded.sum
         WHERE excluded.offset >= offset",
    )?
    .execute(params![hub, feed, offset as i64, mark, sum])?;
    Ok(())
}

/// Forgets the mark of a feed.
pub(super) fn forget(db: &Connection, hub: u16, feed: &str) -> Result<()> {
    db.execute("DELETE FROM marks WHERE hub = ?1 AND feed = ?2", params![hub, feed])?;
    Ok(())
}

/// The marks of a hub that are whole.
pub(super) fn read(db: &Connection, hub: u16) -> Result<Vec<Progress>> {
    let mut found = Vec::new();
    let mut rows = db.prepare_cached("SELECT feed, offset, mark, sum FROM marks WHERE hub = ?1 ORDER BY id")?;
    let mut rows = rows.query([hub])?;
    while let Some(row) = rows.next()? {
        let (feed, offset, mark): (Box<str>, i64, Box<[u8]>) =
            (row.get(0)?, row.get(1)?, row.get::<_, Vec<u8>>(2)?.into());
        if row.get::<_, i64>(3)? == mark_sum(i64::from(hub), &feed, offset, &mark) {
            found.push(Progress { feed, mark });
        } else {
            log::info!("store: where the feed {feed} continues is damaged, and not known any more");
        }
    }
    Ok(found)
}
