//! Loading an experiment: what the list says of it, and all pages of its events.

use std::sync::Arc;

use super::list::{ExperimentFilter, PageQuery};
use super::{EVENTS, LoadedExperiment, pages};
use crate::call::ApiCall;
use crate::client::Client;
use crate::error::ClientError;
use crate::pager::{CursorPager, PagerLimits, Step, Stop};
use llmobs_core::analysis::experiment::assemble_events;
use llmobs_core::model::{Experiment, ExperimentMetric, ExperimentSpan};

/// What stands in the error when an answer is JSON but no events.
const NO_EVENTS: &str = "JSON without the events (`data.attributes`)";

/// All that the events endpoint gave.
#[derive(Default)]
struct Walk {
    spans: Vec<ExperimentSpan>,
    summary: Vec<ExperimentMetric>,
    unreadable_rows: usize,
    bytes: usize,
    stopped: Option<Stop>,
}

impl Client {
    /// An experiment with its events, as of now or at most `experiment_life` ago. Calls for the
    /// same experiment share one load.
    ///
    /// # Errors
    /// [`ClientError::ExperimentNotFound`], and everything that [`Client::execute`] gives.
    pub async fn experiment(&self, id: &str) -> Result<Arc<LoadedExperiment>, ClientError> {
        let caches = &self.hub.caches;
        let entry = caches.experiment(self.fingerprint, id).await;
        let life = self.hub.settings.experiment_life;
        let out_of_time = || ClientError::Deadline {
            operation: EVENTS.name,
            seconds: self.deadline.seconds(),
        };
        let loaded = entry
            .loaded
            .get(&self.deadline, out_of_time, || async {
                let (loaded, complete) = self.load_experiment(id).await?;
                // What is incomplete is shared with those who wait, and soon tried again.
                let life = if complete { life } else { life / 4 };
                Ok((Arc::new(loaded), life))
            })
            .await?;
        caches
            .weigh_experiment(self.fingerprint, id, &entry, loaded.bytes)
            .await;
        Ok(loaded)
    }

    /// The experiment, and whether all of its events were read.
    async fn load_experiment(&self, id: &str) -> Result<(LoadedExperiment, bool), ClientError> {
        let (experiment, walk) = tokio::join!(self.known(id), self.walk_events(id));
        let not_found = || ClientError::ExperimentNotFound(id.to_owned());
        let walk = match walk {
            Ok(walk) => walk,
            Err(ClientError::Status(refusal)) if refusal.status == 404 => {
                return Err(not_found());
            }
            Err(error) => return Err(error),
        };
        let mut notes = Vec::new();
        let experiment = match experiment {
            Ok(experiment) => experiment,
            Err(error) => {
                notes.push(format!("name, project and status are not known: {error}"));
                None
            }
        };
        let nothing = walk.spans.is_empty() && walk.summary.is_empty();
        if nothing && experiment.is_none() && notes.is_empty() {
            return Err(not_found());
        }
        if let Some(stop) = walk.stopped {
            notes.push(format!(
                "not all events were read: only the first {} spans, because {}",
                walk.spans.len(),
                stop.why()
            ));
        }
        if walk.unreadable_rows > 0 {
            notes.push(format!(
                "{} rows of the answer are not spans or metrics and are left out",
                walk.unreadable_rows
            ));
        }
        let complete = walk.stopped.is_none();
        let (spans, summary) = (walk.spans, walk.summary);
        let assembled = tokio::task::spawn_blocking(move || assemble_events(spans, summary)).await;
        let Ok(data) = assembled else {
            return Err(self.unreadable(&EVENTS, 200, "events that cannot be read".to_owned()));
        };
        let loaded = LoadedExperiment {
            experiment,
            data,
            notes,
            bytes: walk.bytes,
        };
        Ok((loaded, complete))
    }

    /// What the list says of one experiment.
    async fn known(&self, id: &str) -> Result<Option<Experiment>, ClientError> {
        let filter = ExperimentFilter {
            ids: vec![id.to_owned()],
            ..ExperimentFilter::default()
        };
        let page = self.experiments(&filter, 1, None).await?;
        Ok(page.rows.into_iter().find(|row| row.id == id))
    }

    /// Reads all pages. One that is too large is asked for again at half the size. When the time
    /// is over after some pages, what was read stands.
    async fn walk_events(&self, id: &str) -> Result<Walk, ClientError> {
        let settings = &self.hub.settings;
        let limits = PagerLimits {
            max_pages: settings.max_pages,
            max_bytes: settings.max_trace_bytes,
        };
        let mut pager = CursorPager::new(limits, self.deadline);
        let mut walk = Walk::default();
        let mut limit = settings.experiment_page.max(1);
        let mut cursor: Option<String> = None;
        loop {
            let paging = PageQuery {
                limit,
                cursor: cursor.as_deref(),
            };
            let call = paging.of(ApiCall::with_ids(&EVENTS, &[id])?);
            let (page, bytes) = match self.execute_into(call, pages::read, NO_EVENTS).await {
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
            walk.spans.extend(page.spans);
            // Some upstreams repeat them on each page.
            for metric in page.summary {
                if !walk.summary.contains(&metric) {
                    walk.summary.push(metric);
                }
            }
            walk.unreadable_rows += page.unreadable_rows;
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
