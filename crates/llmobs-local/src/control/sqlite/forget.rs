//! Forgetting spans that are no longer kept: their membership, and the metrics of runs.

use rusqlite::{Connection, params};

/// Forgets one span.
pub(super) fn member(connection: &Connection, trace: &str, span: &str) -> rusqlite::Result<usize> {
    // Metrics name the span alone, and a span id is unique within its trace only: another run of
    // that id keeps them.
    connection
        .prepare_cached(
            "DELETE FROM metrics WHERE span = ?2
               AND experiment = (SELECT experiment FROM members
                                 WHERE trace = ?1 AND span = ?2 AND run = 1)
               AND NOT EXISTS (SELECT 1 FROM members AS other
                               WHERE other.experiment = metrics.experiment AND other.run = 1
                                 AND other.span = ?2 AND other.trace <> ?1)",
        )?
        .execute(params![trace, span])?;
    connection
        .prepare_cached("DELETE FROM members WHERE trace = ?1 AND span = ?2")?
        .execute(params![trace, span])
}

/// Forgets the spans that began before a moment, in nanoseconds.
pub(super) fn before(connection: &Connection, start_ns: i64) -> rusqlite::Result<usize> {
    let old: Vec<(String, String)> = connection
        .prepare_cached("SELECT trace, span FROM members WHERE start < ?1")?
        .query_map([start_ns], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (trace, span) in &old {
        member(connection, trace, span)?;
    }
    Ok(old.len())
}
