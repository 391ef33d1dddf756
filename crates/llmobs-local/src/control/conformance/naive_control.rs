//! The oracle: a naive control store that keeps lists.

use std::sync::{Mutex, PoisonError};

use crate::control::{
    Change, ControlStore, MAX_MEMBERS_PER_PAGE, Member, Metric, MetricScope, Object, ObjectFilter,
    Record, RecordFilter, RunFilter, Totals,
};
use crate::store::StoreError;

/// The oracle.
#[derive(Default)]
pub(super) struct NaiveControl {
    lists: Mutex<Lists>,
}

#[derive(Default)]
struct Lists {
    objects: Vec<Object>,
    records: Vec<Record>,
    metrics: Vec<(String, Metric)>,
    members: Vec<Member>,
}

impl NaiveControl {
    fn with<T>(&self, work: impl FnOnce(&mut Lists) -> T) -> Result<T, StoreError> {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(work(&mut lists))
    }
}

impl ControlStore for NaiveControl {
    fn find(&self, filter: &ObjectFilter) -> Result<Vec<Object>, StoreError> {
        self.with(|lists| {
            let matches = |object: &&Object| {
                object.kind == filter.kind
                    && (filter.ids.is_empty() || filter.ids.contains(&object.id))
                    && filter
                        .parent
                        .as_ref()
                        .is_none_or(|parent| *parent == object.parent)
                    && filter.name.as_ref().is_none_or(|name| *name == object.name)
                    && filter
                        .deleted
                        .is_none_or(|deleted| deleted == object.deleted)
                    && filter.before.is_none_or(|before| object.seq < before)
            };
            let mut objects: Vec<Object> = lists.objects.iter().filter(matches).cloned().collect();
            objects.sort_by_key(|object| -object.seq);
            objects.truncate(filter.limit);
            objects
        })
    }

    fn records(&self, filter: &RecordFilter) -> Result<Vec<Record>, StoreError> {
        self.with(|lists| {
            let matches = |record: &&Record| {
                record.dataset == filter.dataset
                    && record.since <= filter.version
                    && record.until.is_none_or(|until| until > filter.version)
                    && filter.tags.iter().all(|tag| record.tags.contains(tag))
                    && (filter.ids.is_empty() || filter.ids.contains(&record.id))
                    && filter.after.is_none_or(|after| record.position > after)
            };
            let mut records: Vec<Record> = lists.records.iter().filter(matches).cloned().collect();
            records.sort_by_key(|record| record.position);
            records.truncate(filter.limit);
            records
        })
    }

    fn metrics(&self, experiment: &str, scope: MetricScope) -> Result<Vec<Metric>, StoreError> {
        self.with(|lists| {
            let is_of_run = |metric: &Metric, first: i64, last: i64| {
                lists.members.iter().any(|member| {
                    member.experiment == experiment
                        && member.run
                        && member.span == metric.span
                        && (first..=last).contains(&member.start_ns)
                })
            };
            let matches = |metric: &Metric| match scope {
                MetricScope::Experiment => metric.span.is_empty(),
                MetricScope::Runs { first_ns, last_ns } => is_of_run(metric, first_ns, last_ns),
            };
            let metrics = lists.metrics.iter().filter(|(id, _)| id == experiment);
            let metrics = metrics.map(|(_, metric)| metric.clone());
            metrics.filter(|metric| matches(metric)).collect()
        })
    }

    fn runs(&self, filter: &RunFilter<'_>) -> Result<Vec<Member>, StoreError> {
        self.with(|lists| {
            let follows = |member: &Member| {
                filter.after.is_none_or(|(start, span)| {
                    (member.start_ns, member.span.as_str()) > (start, span)
                })
            };
            let runs = lists.members.iter().filter(|member| {
                member.run && member.experiment == filter.experiment && follows(member)
            });
            let mut runs: Vec<Member> = runs.cloned().collect();
            runs.sort_by_key(|member| (member.start_ns, member.span.clone()));
            runs.truncate(filter.limit);
            for run in &mut runs {
                let trace = lists
                    .members
                    .iter()
                    .filter(|member| member.trace == run.trace);
                let sum = |value: fn(&Member) -> f64| trace.clone().map(value).sum();
                run.input_tokens = sum(|member| member.input_tokens);
                run.output_tokens = sum(|member| member.output_tokens);
                run.total_tokens = sum(|member| member.total_tokens);
                run.cost_usd = sum(|member| member.cost_usd);
            }
            runs
        })
    }

    fn totals(&self, experiment: &str) -> Result<Totals, StoreError> {
        self.with(|lists| {
            let mut totals = Totals::default();
            for member in &lists.members {
                if member.experiment != experiment {
                    continue;
                }
                totals.runs += i64::from(member.run);
                totals.failed_runs += i64::from(member.run && member.failed);
                totals.duration_ns += member.duration_ns * i64::from(member.run);
                totals.input_tokens += member.input_tokens;
                totals.output_tokens += member.output_tokens;
                totals.total_tokens += member.total_tokens;
                totals.cost_usd += member.cost_usd;
            }
            totals
        })
    }

    fn check(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    fn members(&self, after: Option<(&str, &str)>) -> Result<Vec<(String, String)>, StoreError> {
        self.with(|lists| {
            let ids = lists.members.iter();
            let ids = ids.map(|member| (member.trace.clone(), member.span.clone()));
            let follows = |id: &(String, String)| {
                after.is_none_or(|after| (id.0.as_str(), id.1.as_str()) > after)
            };
            let mut ids: Vec<(String, String)> = ids.filter(follows).collect();
            ids.sort();
            ids.truncate(MAX_MEMBERS_PER_PAGE);
            ids
        })
    }

    fn bytes(&self) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn apply(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        self.with(|lists| {
            for change in changes {
                lists.apply(change);
            }
        })
    }
}

impl Lists {
    fn apply(&mut self, change: Change) {
        match change {
            Change::PutObject(mut object) => {
                let same = |other: &&mut Object| other.kind == object.kind && other.id == object.id;
                if let Some(existing) = self.objects.iter_mut().find(same) {
                    object.seq = existing.seq;
                    *existing = object;
                } else {
                    let last = self.objects.iter().map(|object| object.seq).max();
                    object.seq = last.unwrap_or(0) + 1;
                    self.objects.push(object);
                }
            }
            Change::RemoveObject { kind, id } => {
                self.objects
                    .retain(|object| object.kind != kind || object.id != id);
            }
            Change::PutRecord(record) => {
                self.remove_record(&record.dataset, &record.id, record.since);
                self.records.push(record);
            }
            Change::RemoveRecord { dataset, id, since } => self.remove_record(&dataset, &id, since),
            Change::AddMetric { experiment, metric } => self.metrics.push((experiment, metric)),
            Change::RemoveMetrics { experiment } => {
                self.metrics.retain(|(id, _)| *id != experiment);
            }
            Change::PutMember(member) => {
                self.members
                    .retain(|other| (&other.trace, &other.span) != (&member.trace, &member.span));
                self.members.push(member);
            }
            Change::RemoveMember { trace, span } => self.remove_member(&trace, &span),
            Change::RemoveMembersBefore { start_ns } => {
                let old = self
                    .members
                    .iter()
                    .filter(|member| member.start_ns < start_ns);
                let old: Vec<Member> = old.cloned().collect();
                for member in old {
                    self.remove_member(&member.trace, &member.span);
                }
            }
        }
    }

    fn remove_member(&mut self, trace: &str, span: &str) {
        let is_member = |member: &Member| member.trace == trace && member.span == span;
        let Some(index) = self.members.iter().position(is_member) else {
            return;
        };
        let removed = self.members.remove(index);
        let is_same_run = |member: &Member| {
            member.run && member.experiment == removed.experiment && member.span == removed.span
        };
        if removed.run && !self.members.iter().any(is_same_run) {
            self.metrics
                .retain(|(id, metric)| *id != removed.experiment || metric.span != removed.span);
        }
    }

    fn remove_record(&mut self, dataset: &str, id: &str, since: i64) {
        self.records.retain(|record| {
            (record.dataset.as_str(), record.id.as_str(), record.since) != (dataset, id, since)
        });
    }
}
