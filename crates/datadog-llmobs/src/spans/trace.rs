//! Loading a whole trace: its structure, by paging the documented search.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::contents::apart;
use super::request::{Filter, PageRequest};
use super::search::unreadable_rows;
use super::{LoadedTrace, SEARCH};
use crate::client::Client;
use crate::error::ClientError;
use crate::pager::{CursorPager, PagerLimits, Step, Stop};
use llmobs_core::analysis::tree::TraceTree;
use llmobs_core::model::{Span, SpanId, TimeWindow, TraceId};

/// How far a walk over pages came.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) bytes: usize,
    /// Why it is not everything.
    pub(super) stopped: Option<Stop>,
    pub(super) timed_out: bool,
    pub(super) unreadable_rows: usize,
}

impl Client {
    /// The structure of a trace, whatever its age, with its evaluations as of now or at most a
    /// few seconds ago. Kept for a short while; calls for the same trace share one load.
    ///
    /// # Errors
    /// [`ClientError::TraceNotFound`] if there is no span of it, and everything that
    /// [`Client::execute`] gives.
    pub async fn trace(&self, id: &TraceId, now_ms: i64) -> Result<Arc<LoadedTrace>, ClientError> {
        let caches = &self.hub.caches;
        let entry = caches.entry(self.fingerprint, id).await;
        let life = self.hub.settings.structure_life;
        let out_of_time = || ClientError::Deadline {
            operation: SEARCH.name,
            seconds: self.deadline.seconds(),
        };
        let trace = entry
            .structure
            .get(&self.deadline, out_of_time, || async {
                let trace = self.load_structure(id, now_ms).await?;
                // What is incomplete is shared with those who wait, and soon tried again.
                let life = if trace.complete { life } else { life / 4 };
                Ok((Arc::new(trace), life))
            })
            .await?;
        caches
            .weigh(self.fingerprint, id, &entry, trace.bytes)
            .await;
        Ok(trace)
    }

    async fn load_structure(&self, id: &TraceId, now_ms: i64) -> Result<LoadedTrace, ClientError> {
        let settings = &self.hub.settings;
        let window = lookback(now_ms, settings.lookback);
        let mut spans: Vec<Arc<Span>> = Vec::new();
        let mut seen: HashMap<SpanId, usize> = HashMap::new();
        let walk = self
            .walk(
                &Filter::trace(id),
                window,
                settings.structure_page,
                false,
                |page| {
                    for span in page {
                        // A row that moved between two pages while the trace grew comes twice.
                        let repeated = seen
                            .get(&span.span_id)
                            .and_then(|at| spans.get(*at))
                            .is_some_and(|known| **known == span);
                        if !repeated {
                            seen.insert(span.span_id.clone(), spans.len());
                            spans.push(Arc::new(span));
                        }
                    }
                },
            )
            .await?;
        if spans.is_empty() {
            return Err(if walk.timed_out {
                ClientError::SearchTimedOut {
                    operation: SEARCH.name,
                    upstream: self.upstream_name(),
                }
            } else {
                ClientError::TraceNotFound(id.clone())
            });
        }
        let mut notes = Vec::new();
        if let Some(stop) = walk.stopped {
            notes.push(format!(
                "the trace is not complete: only its first {} spans were read, because {}",
                spans.len(),
                stop.why()
            ));
        }
        if walk.timed_out {
            notes.push(format!(
                "the trace may not be complete: {} ran out of time while searching",
                self.upstream_name()
            ));
        }
        notes.extend(unreadable_rows(walk.unreadable_rows));
        let tree = TraceTree::build(&spans);
        Ok(LoadedTrace {
            id: id.clone(),
            complete: walk.stopped.is_none() && !walk.timed_out,
            apart: apart(&tree),
            tree,
            window,
            notes,
            bytes: walk.bytes,
        })
    }

    /// Reads all pages of a filter, oldest first, each given to `take`. A page that is too large
    /// is asked for again at half the size. When the time is over after some pages, what was read
    /// stands.
    pub(super) async fn walk(
        &self,
        filter: &Filter,
        window: TimeWindow,
        page_size: usize,
        attachments: bool,
        mut take: impl FnMut(Vec<Span>),
    ) -> Result<Walk, ClientError> {
        let settings = &self.hub.settings;
        let limits = PagerLimits {
            max_pages: settings.max_pages,
            max_bytes: settings.max_trace_bytes,
        };
        let mut pager = CursorPager::new(limits, self.deadline);
        let mut walk = Walk::default();
        let mut limit = page_size.max(1);
        let mut cursor: Option<String> = None;
        loop {
            let request = PageRequest {
                filter,
                window,
                limit,
                cursor: cursor.as_deref(),
                newest_first: false,
                attachments,
            };
            let (page, bytes) = match self.search_page(&request).await {
                Ok(answer) => answer,
                Err(error) if error.is_too_large() && limit > 1 => {
                    limit /= 2;
                    continue;
                }
                Err(error) if error.is_out_of_time() && cursor.is_some() => {
                    walk.stopped = Some(match error {
                        ClientError::RateLimited { .. } => Stop::RateLimited,
                        _ => Stop::OutOfTime,
                    });
                    return Ok(walk);
                }
                Err(error) => return Err(error),
            };
            walk.bytes = walk.bytes.saturating_add(bytes);
            walk.timed_out |= page.timed_out;
            walk.unreadable_rows += page.unreadable_rows;
            take(page.spans);
            match pager.advance(page.next_cursor, bytes) {
                Step::Next(next) => cursor = Some(next),
                Step::Complete => return Ok(walk),
                Step::Stopped(stop) => {
                    walk.stopped = Some(stop);
                    return Ok(walk);
                }
            }
        }
    }
}

/// The range in which a trace is looked for when its id is known.
fn lookback(now_ms: i64, lookback: Duration) -> TimeWindow {
    let back = i64::try_from(lookback.as_millis()).unwrap_or(i64::MAX);
    TimeWindow {
        from_ms: now_ms.saturating_sub(back),
        to_ms: now_ms,
    }
}
