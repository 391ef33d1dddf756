//! Evaluators as objects of the control store: one per name, with the application as parent.

use serde_json::Value;

use super::{Change, Control, ControlStore, Object, ObjectFilter, ObjectKind};
use crate::store::StoreError;
use llmobs_core::model::Evaluator;

/// The evaluators of a control store. Methods block.
pub(crate) struct Evaluators<'a>(&'a Control);

impl Control {
    /// The evaluators.
    pub(crate) fn evaluators(&self) -> Evaluators<'_> {
        Evaluators(self)
    }
}

impl Evaluators<'_> {
    /// All evaluators by name, or those of one application.
    pub(crate) fn list(&self, app: Option<&str>) -> Result<Vec<Evaluator>, StoreError> {
        let mut objects = self.0.store.find(&ObjectFilter {
            parent: app.map(str::to_owned),
            ..ObjectFilter::all(ObjectKind::Evaluator)
        })?;
        objects.sort_by(|one, other| one.id.cmp(&other.id));
        objects.into_iter().map(decode).collect()
    }

    /// The evaluator with a name.
    pub(crate) fn get(&self, name: &str) -> Result<Option<Evaluator>, StoreError> {
        find(self.0.store.as_ref(), name)
    }

    /// Creates or replaces an evaluator, and returns it as stored. `now` is the time of the change
    /// in RFC 3339; the creation time of a replaced evaluator stays.
    pub(crate) fn put(&self, mut evaluator: Evaluator, now: &str) -> Result<Evaluator, StoreError> {
        self.0.change(|store| {
            let existing = find(store, &evaluator.eval_name)?;
            let created_at = existing.and_then(|existing| existing.created_at);
            evaluator.created_at = Some(created_at.unwrap_or_else(|| now.to_owned()));
            evaluator.updated_at = Some(now.to_owned());
            store.apply(vec![Change::PutObject(encode(&evaluator)?)])?;
            Ok(evaluator)
        })
    }

    /// Deletes an evaluator. `false` if there is none with this name.
    pub(crate) fn delete(&self, name: &str) -> Result<bool, StoreError> {
        self.0.change(|store| {
            if find(store, name)?.is_none() {
                return Ok(false);
            }
            store.apply(vec![Change::RemoveObject {
                kind: ObjectKind::Evaluator,
                id: name.to_owned(),
            }])?;
            Ok(true)
        })
    }

    /// Stores evaluators of an older store. An evaluator that exists with a later update stays.
    pub(crate) fn import(&self, evaluators: &[Evaluator]) -> Result<(), StoreError> {
        self.0.change(|store| {
            let mut changes = Vec::new();
            for evaluator in evaluators {
                let existing = find(store, &evaluator.eval_name)?;
                // Times in RFC 3339 with the same offset are ordered as texts.
                if existing.is_none_or(|existing| existing.updated_at < evaluator.updated_at) {
                    changes.push(Change::PutObject(encode(evaluator)?));
                }
            }
            store.apply(changes)
        })
    }
}

fn find(store: &dyn ControlStore, name: &str) -> Result<Option<Evaluator>, StoreError> {
    let objects = store.find(&ObjectFilter {
        ids: vec![name.to_owned()],
        limit: 1,
        ..ObjectFilter::all(ObjectKind::Evaluator)
    })?;
    objects.into_iter().next().map(decode).transpose()
}

fn encode(evaluator: &Evaluator) -> Result<Object, StoreError> {
    let name = &evaluator.eval_name;
    let app = &evaluator.target.application_name;
    let mut object = Object::new(ObjectKind::Evaluator, name.clone(), app, name);
    match serde_json::to_value(evaluator) {
        Ok(Value::Object(body)) => object.body = body,
        Ok(_) => return Err(malformed("it is not a JSON object")),
        Err(error) => return Err(malformed(&error)),
    }
    Ok(object)
}

fn decode(object: Object) -> Result<Evaluator, StoreError> {
    serde_json::from_value(Value::Object(object.body)).map_err(|error| malformed(&error))
}

fn malformed(reason: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged {
        location: "an evaluator of the control store".to_owned(),
        cause: reason.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::SqliteControl;
    use super::*;
    use crate::store::Durability;

    fn evaluator(name: &str, app: &str) -> Evaluator {
        let mut evaluator = Evaluator {
            eval_name: name.into(),
            ..Evaluator::default()
        };
        evaluator.target.application_name = app.into();
        evaluator
    }

    fn names(control: &Control, app: Option<&str>) -> Vec<String> {
        let evaluators = control.evaluators().list(app).unwrap();
        evaluators
            .into_iter()
            .map(|evaluator| evaluator.eval_name)
            .collect()
    }

    fn open(directory: &tempfile::TempDir) -> Control {
        let store = SqliteControl::open(directory.path(), Durability::Process).unwrap();
        Control::new(Arc::new(store))
    }

    #[test]
    fn evaluators_survive_a_restart_with_their_creation_time() {
        let directory = tempfile::tempdir().unwrap();
        let control = open(&directory);
        let evaluators = control.evaluators();
        evaluators.put(evaluator("b", "shop"), "then").unwrap();
        evaluators.put(evaluator("a", "bank"), "then").unwrap();
        drop(control);
        let control = open(&directory);
        let evaluators = control.evaluators();
        let replaced = evaluators.put(evaluator("b", "shop"), "now").unwrap();
        assert_eq!(replaced.created_at.as_deref(), Some("then"));
        let stored = evaluators.get("b").unwrap().unwrap();
        assert_eq!(stored.updated_at.as_deref(), Some("now"));
        assert_eq!(names(&control, None), ["a", "b"]);
        assert_eq!(names(&control, Some("shop")), ["b"]);
        assert!(evaluators.delete("b").unwrap());
        assert!(!evaluators.delete("b").unwrap());
        let recreated = evaluators.put(evaluator("b", "shop"), "later").unwrap();
        assert_eq!(recreated.created_at.as_deref(), Some("later"));
    }

    #[test]
    fn import_keeps_later_updates() {
        let directory = tempfile::tempdir().unwrap();
        let control = open(&directory);
        let updated = |name: &str, app: &str, at: &str| Evaluator {
            updated_at: Some(at.to_owned()),
            ..evaluator(name, app)
        };
        control
            .evaluators()
            .put(evaluator("a", "new"), "2026-11-02T00:00:00Z")
            .unwrap();
        let old = [
            updated("a", "old", "2026-11-01T00:00:00Z"),
            updated("b", "old", "2026-11-01T00:00:00Z"),
        ];
        control.evaluators().import(&old).unwrap();
        assert_eq!(names(&control, Some("new")), ["a"]);
        assert_eq!(names(&control, Some("old")), ["b"]);
    }
}
