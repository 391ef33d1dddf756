//! Removal in small transactions: old spans, evaluations whose target is missing, free pages.

use std::collections::HashSet;

use rusqlite::params;

use super::super::{
    EvaluationPurgeOutcome, EvaluationPurgeStep, EvaluationTarget, SpanPurgeOutcome, SpanPurgeStep,
    TargetedEvaluation,
};
use super::State;
use llmobs_core::model::{Evaluation, SpanId, TraceId};

impl State {
    /// Removes the oldest spans of a step, and the evaluations of each of them.
    pub(super) fn purge_spans(
        &mut self,
        step: SpanPurgeStep,
    ) -> rusqlite::Result<SpanPurgeOutcome> {
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
        let mut outcome = SpanPurgeOutcome {
            more: oldest.len() >= step.limit,
            ..SpanPurgeOutcome::default()
        };
        for (id, start, trace, span) in oldest {
            let (trace, span) = (TraceId::from(trace), SpanId::from(span));
            outcome.evaluations += self.remove_evaluations(&trace, &span)?;
            self.remove_span(id)?;
            outcome.newest_start_ns = Some(start);
            outcome.spans.push((trace, span));
        }
        Ok(outcome)
    }

    /// Removes the evaluations of one span. The removal of the span itself updates the index.
    fn remove_evaluations(&self, trace: &TraceId, span: &SpanId) -> rusqlite::Result<u64> {
        let targeted = TargetedEvaluation {
            target: EvaluationTarget::Span {
                trace_id: Some(trace.clone()),
                span_id: span.clone(),
            },
            ml_app: String::new(),
            evaluation: Evaluation::default(),
        };
        let removed = self
            .connection
            .prepare_cached("DELETE FROM evals WHERE target = ?1")?
            .execute([targeted.key()])?;
        Ok(removed as u64)
    }

    /// Removes the evaluations of a step whose target is missing.
    pub(super) fn purge_evaluations(
        &mut self,
        step: EvaluationPurgeStep,
    ) -> rusqlite::Result<EvaluationPurgeOutcome> {
        let limit = i64::try_from(step.limit).unwrap_or(i64::MAX);
        let next: Vec<(i64, String, i64)> = self
            .connection
            .prepare_cached("SELECT id, target, ts FROM evals WHERE id > ?1 ORDER BY id LIMIT ?2")?
            .query_map(params![step.after.unwrap_or(i64::MIN), limit], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?
            .collect::<rusqlite::Result<_>>()?;
        let last = next.last().map(|(id, ..)| *id);
        let mut outcome = EvaluationPurgeOutcome {
            next: last.filter(|_| next.len() >= step.limit),
            ..EvaluationPurgeOutcome::default()
        };
        let old: Vec<(i64, EvaluationTarget)> = next
            .into_iter()
            .filter(|(_, _, made_ms)| *made_ms < step.before_ms)
            .filter_map(|(id, key, _)| Some((id, EvaluationTarget::from_key(&key)?.0)))
            .collect();
        let stored_ids = self.stored_span_ids(&old)?;
        for (id, target) in old {
            // No stored span has this evaluation, so the index does not change.
            if !self.target_exists(&target, &stored_ids)? {
                self.connection
                    .prepare_cached("DELETE FROM evals WHERE id = ?1")?
                    .execute([id])?;
                outcome.evaluations += 1;
            }
        }
        Ok(outcome)
    }

    /// The stored span ids among the targets that name a span without its trace. One scan of all
    /// spans, because no SQL index exists on the span id alone.
    fn stored_span_ids(
        &self,
        old: &[(i64, EvaluationTarget)],
    ) -> rusqlite::Result<HashSet<String>> {
        let span_ids: Vec<&str> = old
            .iter()
            .filter_map(|(_, target)| match target {
                EvaluationTarget::Span {
                    trace_id: None,
                    span_id,
                } => Some(span_id.as_str()),
                _ => None,
            })
            .collect();
        if span_ids.is_empty() {
            return Ok(HashSet::new());
        }
        self.connection
            .prepare_cached(
                "SELECT DISTINCT span_id FROM spans
                 WHERE span_id IN (SELECT value FROM json_each(?1))",
            )?
            .query_map([serde_json::json!(span_ids).to_string()], |row| row.get(0))?
            .collect()
    }

    fn target_exists(
        &self,
        target: &EvaluationTarget,
        stored_ids: &HashSet<String>,
    ) -> rusqlite::Result<bool> {
        let exists = |sql: &str, values: &[&str]| -> rusqlite::Result<bool> {
            self.connection
                .prepare_cached(sql)?
                .exists(rusqlite::params_from_iter(values))
        };
        Ok(match target {
            EvaluationTarget::Span {
                trace_id: Some(trace),
                span_id,
            } => exists(
                "SELECT 1 FROM spans WHERE trace_id = ? AND span_id = ?",
                &[trace.as_str(), span_id.as_str()],
            )?,
            EvaluationTarget::Span {
                trace_id: None,
                span_id,
            } => stored_ids.contains(span_id.as_str()),
            EvaluationTarget::Trace(trace) => {
                exists("SELECT 1 FROM spans WHERE trace_id = ?", &[trace.as_str()])?
            }
            EvaluationTarget::Session(session) => {
                exists("SELECT 1 FROM spans WHERE session_id = ?", &[session])?
            }
            EvaluationTarget::Tag { .. } | EvaluationTarget::JoinKey(_) => true,
        })
    }

    /// Returns free pages to the disk; `true` if there are more. A file that was created without
    /// incremental vacuum keeps its free pages and reuses them.
    pub(super) fn release_pages(&mut self, pages: u32) -> rusqlite::Result<bool> {
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
        // Each row that is read releases one page.
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(number("freelist_count")? > 0)
    }
}
