//! Loading of an experiment: its entry in the list, and all pages of its events.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::EVENTS;
use super::list::{ExperimentFilter, PageQuery};
use super::pages::{self, EventsPage};
use crate::call::ApiCall;
use crate::client::Client;
use crate::error::ClientError;
use crate::loaded::LoadedExperiment;
use crate::pager::{OutOfTime, PageSource, PagesRead};
use llmobs_core::analysis::experiment::assemble_events;
use llmobs_core::model::Experiment;

/// The events of one experiment.
struct EventPages<'a> {
    client: &'a Client,
    id: &'a str,
}

impl PageSource for EventPages<'_> {
    type Page = EventsPage;

    async fn read_page(
        &self,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<(EventsPage, usize), ClientError> {
        let query = PageQuery { limit, cursor };
        let call = query.apply(ApiCall::with_ids(&EVENTS, &[self.id])?);
        self.client.execute_into(call, pages::parse_page).await
    }
}

impl Client {
    /// An experiment with its events, as of now or at most `experiment_life` ago. Parallel calls for
    /// the same experiment share one load.
    ///
    /// # Errors
    /// [`ClientError::ExperimentNotFound`], and the errors of [`Client::execute`].
    pub async fn experiment(&self, id: &str) -> Result<Arc<LoadedExperiment>, ClientError> {
        let caches = &self.hub.caches;
        let entry = caches.experiment(self.fingerprint, id).await;
        let lifetime = self.hub.settings.experiment_life;
        let out_of_time = || ClientError::Deadline {
            operation: EVENTS.name,
            seconds: self.deadline.total_seconds(),
        };
        let loaded = entry
            .loaded
            .get(&self.deadline, out_of_time, || async {
                let (loaded, complete) = self.load_experiment(id).await?;
                // An incomplete experiment is shared with waiting calls, and soon loaded again.
                let lifetime = if complete { lifetime } else { lifetime / 4 };
                Ok((Arc::new(loaded), lifetime))
            })
            .await?;
        caches
            .set_experiment_bytes(self.fingerprint, id, &entry, loaded.bytes)
            .await;
        Ok(loaded)
    }

    /// The experiment, and whether all of its events were read.
    async fn load_experiment(&self, id: &str) -> Result<(LoadedExperiment, bool), ClientError> {
        let (experiment, events) =
            tokio::join!(self.experiment_entry(id), self.experiment_events(id));
        let not_found = || ClientError::ExperimentNotFound(id.to_owned());
        let (events, read) = match events {
            Ok(events) => events,
            Err(ClientError::Status(response)) if response.status == 404 => {
                return Err(not_found());
            }
            Err(error) => return Err(error),
        };
        let mut notes = Vec::new();
        let experiment = match experiment {
            Ok(experiment) => experiment,
            Err(error) => {
                notes.push(format!("name, project and status are unknown: {error}"));
                None
            }
        };
        let is_empty = events.spans.is_empty() && events.summary.is_empty();
        if is_empty && experiment.is_none() && notes.is_empty() {
            return Err(not_found());
        }
        if let Some(reason) = read.stopped {
            notes.push(format!(
                "not all events were read: only the first {} spans, because {}",
                events.spans.len(),
                reason.clause()
            ));
        }
        if events.unreadable_rows > 0 {
            notes.push(format!(
                "{} rows that are not spans or metrics were left out",
                events.unreadable_rows
            ));
        }
        let (spans, summary) = (events.spans, events.summary);
        let assembled = tokio::task::spawn_blocking(move || assemble_events(spans, summary)).await;
        let Ok(data) = assembled else {
            return Err(self.unreadable(&EVENTS, 200, "events that cannot be read".to_owned()));
        };
        let loaded = LoadedExperiment {
            experiment,
            data,
            notes,
            bytes: read.bytes,
        };
        Ok((loaded, read.stopped.is_none()))
    }

    /// The entry of an experiment in the list.
    async fn experiment_entry(&self, id: &str) -> Result<Option<Experiment>, ClientError> {
        let filter = ExperimentFilter {
            ids: vec![id.to_owned()],
            ..ExperimentFilter::default()
        };
        let page = self.experiments(&filter, 1, None).await?;
        Ok(page.rows.into_iter().find(|row| row.id == id))
    }

    /// All events of an experiment.
    async fn experiment_events(&self, id: &str) -> Result<(EventsPage, PagesRead), ClientError> {
        let source = EventPages { client: self, id };
        let page_size = self.hub.settings.experiment_page;
        let mut events = EventsPage::default();
        let read = self
            .read_pages(&source, page_size, OutOfTime::KeepsPages, |page| {
                events.spans.extend(page.spans);
                // Some upstreams repeat the summary on each page.
                for metric in page.summary {
                    if !events.summary.contains(&metric) {
                        events.summary.push(metric);
                    }
                }
                events.unreadable_rows += page.unreadable_rows;
                ControlFlow::Continue(())
            })
            .await?;
        Ok((events, read))
    }
}
