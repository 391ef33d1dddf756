//! The control plane done naively, to compare others with.

use std::sync::{Mutex, PoisonError};

use super::{
    Change, ControlStore, Find, MEMBERS_AT_ONCE, Member, Metric, MetricsOf, Object, Record,
    RecordsAsked, RunsAsked, Totals,
};
use crate::store::StoreError;

#[derive(Default)]
pub(super) struct Oracle {
    rows: Mutex<Rows>,
}

#[derive(Default)]
struct Rows {
    objects: Vec<Object>,
    records: Vec<Record>,
    metrics: Vec<(String, Metric)>,
    members: Vec<Member>,
}

impl Oracle {
    fn with<T>(&self, work: impl FnOnce(&mut Rows) -> T) -> Result<T, StoreError> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(work(&mut rows))
    }
}

impl ControlStore for Oracle {
    fn find(&self, find: &Find) -> Result<Vec<Object>, StoreError> {
        self.with(|rows| {
            let fits = |object: &&Object| {
                object.kind == find.kind
                    && (find.ids.is_empty() || find.ids.contains(&object.id))
                    && find.parent.as_ref().is_none_or(|it| *it == object.parent)
                    && find.name.as_ref().is_none_or(|it| *it == object.name)
                    && find.deleted.is_none_or(|it| it == object.deleted)
                    && find.before.is_none_or(|it| object.seq < it)
            };
            let mut found: Vec<Object> = rows.objects.iter().filter(fits).cloned().collect();
            found.sort_by_key(|object| -object.seq);
            found.truncate(find.limit);
            found
        })
    }

    fn records(&self, asked: &RecordsAsked) -> Result<Vec<Record>, StoreError> {
        self.with(|rows| {
            let fits = |record: &&Record| {
                record.dataset == asked.dataset
                    && record.since <= asked.version
                    && record.until.is_none_or(|until| until > asked.version)
                    && asked.tags.iter().all(|tag| record.tags.contains(tag))
                    && (asked.ids.is_empty() || asked.ids.contains(&record.id))
                    && asked.after.is_none_or(|after| record.place > after)
            };
            let mut found: Vec<Record> = rows.records.iter().filter(fits).cloned().collect();
            found.sort_by_key(|record| record.place);
            found.truncate(asked.limit);
            found
        })
    }

    fn metrics(&self, experiment: &str, of: MetricsOf) -> Result<Vec<Metric>, StoreError> {
        self.with(|rows| {
            let of_run = |metric: &Metric, first: i64, last: i64| {
                rows.members.iter().any(|member| {
                    member.experiment == experiment
                        && member.run
                        && member.span == metric.span
                        && (first..=last).contains(&member.start_ns)
                })
            };
            let fits = |metric: &Metric| match of {
                MetricsOf::Whole => metric.span.is_empty(),
                MetricsOf::Runs { first_ns, last_ns } => of_run(metric, first_ns, last_ns),
            };
            let mine = rows.metrics.iter().filter(|(id, _)| id == experiment);
            let metrics = mine.map(|(_, metric)| metric.clone());
            metrics.filter(|metric| fits(metric)).collect()
        })
    }

    fn runs(&self, asked: &RunsAsked<'_>) -> Result<Vec<Member>, StoreError> {
        self.with(|rows| {
            let behind = |member: &Member| {
                asked.after.is_none_or(|(start, span)| {
                    (member.start_ns, member.span.as_str()) > (start, span)
                })
            };
            let runs = rows.members.iter().filter(|member| {
                member.run && member.experiment == asked.experiment && behind(member)
            });
            let mut runs: Vec<Member> = runs.cloned().collect();
            runs.sort_by_key(|member| (member.start_ns, member.span.clone()));
            runs.truncate(asked.limit);
            for run in &mut runs {
                let trace = rows.members.iter().filter(|one| one.trace == run.trace);
                let sum = |part: fn(&Member) -> f64| trace.clone().map(part).sum();
                run.input_tokens = sum(|one| one.input_tokens);
                run.output_tokens = sum(|one| one.output_tokens);
                run.total_tokens = sum(|one| one.total_tokens);
                run.cost_usd = sum(|one| one.cost_usd);
            }
            runs
        })
    }

    fn totals(&self, experiment: &str) -> Result<Totals, StoreError> {
        self.with(|rows| {
            let mut totals = Totals::default();
            for member in &rows.members {
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
        self.with(|rows| {
            let ids = rows.members.iter();
            let ids = ids.map(|member| (member.trace.clone(), member.span.clone()));
            let behind = |id: &(String, String)| {
                after.is_none_or(|after| (id.0.as_str(), id.1.as_str()) > after)
            };
            let mut ids: Vec<(String, String)> = ids.filter(behind).collect();
            ids.sort();
            ids.truncate(MEMBERS_AT_ONCE);
            ids
        })
    }

    fn bytes(&self) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn apply(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        self.with(|rows| {
            for change in changes {
                rows.make(change);
            }
        })
    }
}

impl Rows {
    fn make(&mut self, change: Change) {
        match change {
            Change::Object(mut object) => {
                let same = |known: &&mut Object| known.kind == object.kind && known.id == object.id;
                if let Some(known) = self.objects.iter_mut().find(same) {
                    object.seq = known.seq;
                    *known = object;
                } else {
                    object.seq = i64::try_from(self.objects.len()).unwrap() + 1;
                    self.objects.push(object);
                }
            }
            Change::Record(record) => {
                self.forget(&record.dataset, &record.id, record.since);
                self.records.push(record);
            }
            Change::RemoveRecord { dataset, id, since } => self.forget(&dataset, &id, since),
            Change::Metric { experiment, metric } => self.metrics.push((experiment, metric)),
            Change::ForgetMetrics { experiment } => {
                self.metrics.retain(|(id, _)| *id != experiment);
            }
            Change::Member(member) => {
                self.members
                    .retain(|known| (&known.trace, &known.span) != (&member.trace, &member.span));
                self.members.push(member);
            }
            Change::ForgetMember { trace, span } => self.forget_member(&trace, &span),
            Change::ForgetMembersBefore { start_ns } => {
                let old = self
                    .members
                    .iter()
                    .filter(|known| known.start_ns < start_ns);
                let old: Vec<Member> = old.cloned().collect();
                for member in old {
                    self.forget_member(&member.trace, &member.span);
                }
            }
        }
    }

    fn forget_member(&mut self, trace: &str, span: &str) {
        let this = |known: &Member| known.trace == trace && known.span == span;
        let Some(at) = self.members.iter().position(this) else {
            return;
        };
        let gone = self.members.remove(at);
        let twin = |known: &Member| {
            known.run && known.experiment == gone.experiment && known.span == gone.span
        };
        if gone.run && !self.members.iter().any(twin) {
            self.metrics
                .retain(|(id, metric)| *id != gone.experiment || metric.span != gone.span);
        }
    }

    fn forget(&mut self, dataset: &str, id: &str, since: i64) {
        self.records.retain(|record| {
            (record.dataset.as_str(), record.id.as_str(), record.since) != (dataset, id, since)
        });
    }
}
