//! Removing in small transactions: old spans, evaluations about nothing, free pages.

use std::collections::HashSet;

use rusqlite::params;

use super::super::{EvaluationTarget, PurgeStep, Purged, SweepStep, Swept, TargetedEvaluation};
use super::State;
use llmobs_core::model::{Evaluation, SpanId, TraceId};

impl State {
    /// Removes the oldest spans of a step, and what was said about each of them.
    pub(super) fn purge(&mut self, step: PurgeStep) -> rusqlite::Result<Purged> {
        let limit = i64::try_from(step.limit).unwrap_or(i64::MAX);
        let oldest: Vec<(i64, i64, String, String)> = self
            .connection
            .prepare_cached(
                "SELECT id, start, trace_id, span_id FROM spans WHERE start < ?1
                 ORDER BY start, id LIMIT ?2",
            )?
            .query_map(params![step.before_ns, limit], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })?
            .collect::<rusqlite::Result<_>>()?;
        let mut purged = Purged {
            more: oldest.len() >= step.limit,
            ..Purged::default()
        };
        for (id, start, trace, span) in oldest {
            let (trace, span) = (TraceId::from(trace), SpanId::from(span));
            purged.evaluations += self.forget_evaluations(&trace, &span)?;
            self.remove(id)?;
            purged.newest_start_ns = Some(start);
            purged.spans.push((trace, span));
        }
        Ok(purged)
    }

    /// The change of the span itself tells an index that these are gone.
    fn forget_evaluations(&self, trace: &TraceId, span: &SpanId) -> rusqlite::Result<u64> {
        let about = TargetedEvaluation {
            target: EvaluationTarget::Span {
                trace_id: Some(trace.clone()),
                span_id: span.clone(),
            },
            ml_app: String::new(),
            evaluation: Evaluation::default(),
        };
        let gone = self
            .connection
            .prepare_cached("DELETE FROM evals WHERE target = ?1")?
            .execute([about.key()])?;
        Ok(gone as u64)
    }

    /// Removes evaluations that are about nothing, of those next in order.
    pub(super) fn sweep(&mut self, step: SweepStep) -> rusqlite::Result<Swept> {
        let limit = i64::try_from(step.limit).unwrap_or(i64::MAX);
        let next: Vec<(i64, String, i64)> = self
            .connection
            .prepare_cached("SELECT id, target, ts FROM evals WHERE id > ?1 ORDER BY id LIMIT ?2")?
            .query_map(params![step.after.unwrap_or(i64::MIN), limit], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?
            .collect::<rusqlite::Result<_>>()?;
        let last = next.last().map(|(id, ..)| *id);
        let mut swept = Swept {
            next: last.filter(|_| next.len() >= step.limit),
            ..Swept::default()
        };
        let old: Vec<(i64, EvaluationTarget)> = next
            .into_iter()
            .filter(|(_, _, made_ms)| *made_ms < step.before_ms)
            .filter_map(|(id, key, _)| Some((id, EvaluationTarget::of_key(&key)?.0)))
            .collect();
        let alive = self.alive_of(&old)?;
        for (id, target) in old {
            // No span is left that it could belong to, so no index has to hear of it.
            if self.is_gone(&target, &alive)? {
                self.connection
                    .prepare_cached("DELETE FROM evals WHERE id = ?1")?
                    .execute([id])?;
                swept.evaluations += 1;
            }
        }
        Ok(swept)
    }

    /// Which of the spans named by their id alone are there: all in one walk over the spans,
    /// because no index leads to them.
    fn alive_of(&self, old: &[(i64, EvaluationTarget)]) -> rusqlite::Result<HashSet<String>> {
        let named: Vec<&str> = old
            .iter()
            .filter_map(|(_, target)| match target {
                EvaluationTarget::Span {
                    trace_id: None,
                    span_id,
                } => Some(span_id.as_str()),
                _ => None,
            })
            .collect();
        if named.is_empty() {
            return Ok(HashSet::new());
        }
        self.connection
            .prepare_cached(
                "SELECT DISTINCT span_id FROM spans
                 WHERE span_id IN (SELECT value FROM json_each(?1))",
            )?
            .query_map([serde_json::json!(named).to_string()], |row| row.get(0))?
            .collect()
    }

    fn is_gone(
        &self,
        target: &EvaluationTarget,
        alive: &HashSet<String>,
    ) -> rusqlite::Result<bool> {
        let there = |sql: &str, values: &[&str]| -> rusqlite::Result<bool> {
            self.connection
                .prepare_cached(sql)?
                .exists(rusqlite::params_from_iter(values))
        };
        let found = match target {
            EvaluationTarget::Span {
                trace_id: Some(trace),
                span_id,
            } => there(
                "SELECT 1 FROM spans WHERE trace_id = ? AND span_id = ?",
                &[trace.as_str(), span_id.as_str()],
            )?,
            EvaluationTarget::Span {
                trace_id: None,
                span_id,
            } => alive.contains(span_id.as_str()),
            EvaluationTarget::Trace(trace) => {
                there("SELECT 1 FROM spans WHERE trace_id = ?", &[trace.as_str()])?
            }
            EvaluationTarget::Session(session) => {
                there("SELECT 1 FROM spans WHERE session_id = ?", &[session])?
            }
            EvaluationTarget::Tag { .. } | EvaluationTarget::JoinKey(_) => true,
        };
        Ok(!found)
    }

    /// Gives free pages back; says whether there are more. A file that was made without the means
    /// for it keeps them and uses them again.
    pub(super) fn give_back(&mut self, pages: u32) -> rusqlite::Result<bool> {
        const INCREMENTAL: i64 = 2;
        let number = |name: &str| -> rusqlite::Result<i64> {
            self.connection
                .query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
        };
        if number("auto_vacuum")? != INCREMENTAL {
            return Ok(false);
        }
        let mut statement = self
            .connection
            .prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
        // Each row that is asked for gives one page back.
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(number("freelist_count")? > 0)
    }
}
