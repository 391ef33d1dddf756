//! Removal of members whose spans were removed, and of the metrics of their runs.

use rusqlite::{Connection, params};

/// Removes one member.
pub(super) fn remove_member(
    connection: &Connection,
    trace: &str,
    span: &str,
) -> rusqlite::Result<usize> {
    // Metrics name only the span id, which is unique within a trace. They stay if another run has
    // the same span id.
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

/// Removes the members that started before a moment, in nanoseconds since the Unix epoch.
pub(super) fn remove_members_before(
    connection: &Connection,
    start_ns: i64,
) -> rusqlite::Result<usize> {
    let old: Vec<(String, String)> = connection
        .prepare_cached("SELECT trace, span FROM members WHERE start < ?1")?
        .query_map([start_ns], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (trace, span) in &old {
        remove_member(connection, trace, span)?;
    }
    Ok(old.len())
}
