//! Which rows can match at all, as SQL: the structured filters, the window, the place to continue,
//! and those parts of the query that name a column.
//!
//! SQL narrows and orders; what it cannot say (tags, text, evaluations) is asked of each span. A
//! condition taken from the query must never exclude a row that the query matches: only exact
//! values of columns that cannot be empty are taken, and only where they must hold.

use rusqlite::types::Value as Sql;

use super::rows::Row;
use super::{Position, Search};
use llmobs_core::model::{ROOT_PARENT, Span};
use llmobs_core::query::{Expr, Field, Pattern, Term};

/// Conditions on rows, and the same as SQL on `spans` with its parameters and the order asked for.
pub(super) struct Narrowed {
    from_ns: i64,
    to_ns: i64,
    after: Option<Position>,
    newest_first: bool,
    conditions: Vec<Condition>,
    sql: String,
    order: String,
    parameters: Vec<Sql>,
}

/// A condition on one column.
#[derive(Debug, PartialEq)]
enum Condition {
    Text(Column, String),
    Failed(bool),
    Root,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Column {
    Trace,
    Span,
    Session,
    ApmTrace,
    App,
    Name,
    Kind,
}

impl Column {
    fn sql(self) -> &'static str {
        match self {
            Column::Trace => "trace_id = ?",
            Column::Span => "span_id = ?",
            Column::Session => "session_id = ?",
            Column::ApmTrace => "apm_trace_id = ?",
            Column::App => "app = (SELECT id FROM dict WHERE text = ?)",
            Column::Name => "name = (SELECT id FROM dict WHERE text = ?)",
            Column::Kind => "kind = (SELECT id FROM dict WHERE text = ?)",
        }
    }

    fn of(self, row: &Row) -> Option<&str> {
        match self {
            Column::Trace => Some(&row.trace_id),
            Column::Span => Some(&row.span_id),
            Column::Session => row.session_id.as_deref(),
            Column::ApmTrace => row.apm_trace_id.as_deref(),
            Column::App => Some(&row.app),
            Column::Name => Some(&row.name),
            Column::Kind => Some(&row.kind),
        }
    }

    /// Whether few rows share a value, so that its index beats the one on time.
    fn is_selective(self) -> bool {
        matches!(self, Column::Trace | Column::Session | Column::ApmTrace)
    }
}

impl Condition {
    fn holds(&self, row: &Row) -> bool {
        match self {
            Condition::Text(column, text) => column.of(row) == Some(text),
            Condition::Failed(failed) => row.err == *failed,
            Condition::Root => row.parent_id.is_none(),
        }
    }
}

impl Narrowed {
    fn and(&mut self, condition: &str, values: impl IntoIterator<Item = Sql>) {
        self.sql.push_str(" AND ");
        self.sql.push_str(condition);
        self.parameters.extend(values);
    }

    /// Selects key and start of all rows that meet the conditions, in order.
    pub(super) fn scan(&self) -> (String, Vec<Sql>) {
        let sql = format!(
            "SELECT id, start FROM spans WHERE 1{}{}",
            self.sql, self.order
        );
        (sql, self.parameters.clone())
    }

    /// Whether a row that was not read from the tables meets the conditions.
    pub(super) fn holds(&self, id: i64, row: &Row) -> bool {
        let behind = self.after.is_none_or(|after| {
            let place = (row.start, id);
            let after = (after.start_ns, after.id);
            if self.newest_first {
                place < after
            } else {
                place > after
            }
        });
        behind
            && (self.from_ns..=self.to_ns).contains(&row.start)
            && self.conditions.iter().all(|condition| condition.holds(row))
    }

    /// Selects the start of one row if it meets the conditions.
    pub(super) fn check(&self, id: i64) -> (String, Vec<Sql>) {
        let sql = format!("SELECT start FROM spans WHERE id = ?{}", self.sql);
        let id = std::iter::once(Sql::Integer(id));
        (sql, id.chain(self.parameters.iter().cloned()).collect())
    }
}

/// Whether an index of the rows leads to what a search asks for, with little left to judge: an id
/// was given, or nothing but the application and the time.
pub(super) fn rows_lead_there(search: &Search) -> bool {
    let filters = of_filters(search);
    let parts = search.query.as_ref().map_or(0, |query| match &query.root {
        Expr::All => 0,
        Expr::And(parts) => parts.len(),
        _ => 1,
    });
    let asked = search.query.as_ref().map(|query| of_query(&query.root));
    let asked = asked.unwrap_or_default();
    let all_are_columns = parts == asked.len() && search.filters.tags.is_empty();
    let mut conditions = filters.iter().chain(&asked);
    let by_id = |condition: &Condition| matches!(condition, Condition::Text(column, _) if column.is_selective());
    let by_app = |condition: &Condition| matches!(condition, Condition::Text(Column::App, _));
    conditions.clone().any(by_id) || all_are_columns && conditions.all(by_app)
}

/// Which rows a search has to look at, and in which order.
pub(super) fn narrow(search: &Search) -> Narrowed {
    let mut conditions = of_filters(search);
    if let Some(query) = &search.query {
        conditions.extend(of_query(&query.root));
    }
    // `+` keeps the planner from walking an index by time where an id leads straight to the rows.
    let selective = conditions
        .iter()
        .any(|condition| matches!(condition, Condition::Text(column, _) if column.is_selective()));
    let start = if selective { "+start" } else { "start" };
    let direction = if search.newest_first { "DESC" } else { "ASC" };
    let from = search.window.from_ms.saturating_mul(1_000_000);
    let end = search.window.to_ms.saturating_mul(1_000_000);
    let end = end.saturating_add(999_999);
    // The next page starts at its place in the index, not at the end of the window.
    let (from_ns, to_ns) = match search.after {
        Some(after) if search.newest_first => (from, end.min(after.start_ns)),
        Some(after) => (from.max(after.start_ns), end),
        None => (from, end),
    };
    let mut narrowed = Narrowed {
        from_ns,
        to_ns,
        after: search.after,
        newest_first: search.newest_first,
        conditions: Vec::new(),
        sql: String::new(),
        order: format!(" ORDER BY {start} {direction}, id {direction}"),
        parameters: Vec::new(),
    };
    narrowed.and(
        &format!("{start} BETWEEN ? AND ?"),
        [Sql::Integer(from_ns), Sql::Integer(to_ns)],
    );
    for condition in &conditions {
        match condition {
            Condition::Text(column @ Column::App, text) if selective => {
                narrowed.and(&format!("+{}", column.sql()), [Sql::Text(text.clone())]);
            }
            Condition::Text(column, text) => narrowed.and(column.sql(), [Sql::Text(text.clone())]),
            Condition::Failed(true) => narrowed.and("err = 1", []),
            Condition::Failed(false) => narrowed.and("err = 0", []),
            Condition::Root => narrowed.and("parent_id IS NULL", []),
        }
    }
    narrowed.conditions = conditions;
    if let Some(after) = search.after {
        let sign = if search.newest_first { '<' } else { '>' };
        narrowed.and(
            &format!("({start}, id) {sign} (?, ?)"),
            [Sql::Integer(after.start_ns), Sql::Integer(after.id)],
        );
    }
    narrowed
}

fn of_filters(search: &Search) -> Vec<Condition> {
    let filters = &search.filters;
    let texts = [
        (Column::Trace, &filters.trace_id),
        (Column::Span, &filters.span_id),
        (Column::Session, &filters.session_id),
        (Column::ApmTrace, &search.apm_trace_id),
        (Column::App, &filters.ml_app),
        (Column::Name, &filters.span_name),
        (Column::Kind, &filters.span_kind),
    ];
    let mut conditions: Vec<Condition> = texts
        .into_iter()
        .filter_map(|(column, text)| Some(Condition::Text(column, text.clone()?)))
        .collect();
    if filters.root_spans_only {
        conditions.push(Condition::Root);
    }
    conditions
}

/// What must hold on columns for the query to match.
fn of_query(root: &Expr) -> Vec<Condition> {
    let parts = match root {
        Expr::And(parts) => parts.as_slice(),
        other => std::slice::from_ref(other),
    };
    parts.iter().filter_map(of_part).collect()
}

fn of_part(part: &Expr) -> Option<Condition> {
    let Expr::Term(Term::Field {
        field: Field::Attribute(name),
        pattern: Pattern::Literal(text),
    }) = part
    else {
        return None;
    };
    if text.is_empty() {
        return None;
    }
    let column = match (name.as_str(), text.as_str()) {
        ("trace_id", _) => Column::Trace,
        ("span_id", _) => Column::Span,
        ("session_id" | "session.id", _) => Column::Session,
        ("ml_app", _) => Column::App,
        ("meta.span.kind" | "meta.kind", _) => Column::Kind,
        ("status", "error") => return Some(Condition::Failed(true)),
        ("status", "ok") => return Some(Condition::Failed(false)),
        ("parent_id", ROOT_PARENT) => return Some(Condition::Root),
        _ => return None,
    };
    Some(Condition::Text(column, text.clone()))
}

/// The structured filters that rows cannot answer.
pub(super) fn tags_match(search: &Search, span: &Span) -> bool {
    search.filters.tags.iter().all(|(key, value)| {
        let wanted = |tag: &String| {
            tag.strip_prefix(key.as_str())
                .and_then(|rest| rest.strip_prefix(':'))
                == Some(value.as_str())
        };
        span.tags.iter().any(wanted)
    })
}

#[cfg(test)]
mod tests {
    use super::super::schema::{open_reader, open_writer};
    use super::super::{Durability, SpanStore as _, SqliteStore};
    use super::*;
    use llmobs_core::model::{Status, TimeWindow};
    use llmobs_core::query::combine::SpanFilters;
    use rstest::rstest;

    #[rstest]
    #[case("@trace_id:abc refund", 1)]
    #[case("@ml_app:\"my app\" AND (@status:error AND @span_id:7)", 3)]
    // A name may be empty, and then a tag answers in its place.
    #[case("@name:search", 0)]
    #[case("@parent_id:undefined", 1)]
    #[case("@parent_id:17", 0)]
    #[case("@ml_app:a OR @ml_app:b", 0)]
    #[case("-@ml_app:a", 0)]
    #[case("ml_app:a", 0)]
    #[case("@ml_app:a*", 0)]
    #[case("@ml_app:(a OR b)", 0)]
    #[case("@ml_app:*", 0)]
    fn only_what_must_hold_exactly_narrows(#[case] text: &str, #[case] expected: usize) {
        let query = llmobs_core::query::parse(text).unwrap();
        assert_eq!(of_query(&query.root).len(), expected, "{text}");
    }

    #[rstest]
    #[case("trace_id", "@ml_app:a @status:error", "trace_id=?")]
    #[case("session_id", "@ml_app:a", "spans_session (session_id=?)")]
    #[case("", "@trace_id:x @parent_id:undefined", "trace_id=?")]
    #[case(
        "",
        "@ml_app:a @status:error",
        "spans_app_start (app=? AND start>? AND start<?)"
    )]
    #[case("", "@status:error", "spans_err (start>? AND start<?)")]
    #[case("", "refund", "spans_start (start>? AND start<?)")]
    fn a_search_walks_the_index_that_leads_to_the_fewest_rows(
        #[case] id: &str,
        #[case] query: &str,
        #[case] expected: &str,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let connection = open_writer(&folder.path().join("llmobs.db"), "OFF").unwrap();
        let given = |name: &str| (name == id).then(|| "x".to_owned());
        let search = Search {
            query: Some(llmobs_core::query::parse(query).unwrap()),
            filters: SpanFilters {
                trace_id: given("trace_id"),
                session_id: given("session_id"),
                ..SpanFilters::default()
            },
            ..Search::within(TimeWindow {
                from_ms: 0,
                to_ms: 1,
            })
        };
        let (sql, parameters) = narrow(&search).scan();
        let plan: String = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .unwrap()
            .query_row(rusqlite::params_from_iter(parameters), |row| row.get(3))
            .unwrap();
        assert!(plan.contains(expected), "{plan}");
    }

    /// Spans that differ in everything that is asked for, some with a tag in the place of a column.
    fn spans() -> Vec<Span> {
        let pick = |n: i64, texts: [&str; 3]| texts[n.rem_euclid(3) as usize].to_owned();
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        (0..54)
            .map(|n| Span {
                trace_id: pick(n, ["a", "b", "c"]).into(),
                span_id: n.to_string().into(),
                parent_id: some(pick(n / 2, ["", "7", "8"])).map(Into::into),
                session_id: some(pick(n / 3, ["", "a", "b"])),
                apm_trace_id: some(pick(n / 4, ["", "a", "b"])),
                ml_app: pick(n / 5, ["", "a", "b"]),
                name: pick(n / 6, ["", "a", "b"]),
                kind: pick(n / 7, ["llm", "tool", "step"]).into(),
                status: if n % 4 == 0 {
                    Status::Error
                } else {
                    Status::Ok
                },
                start_ns: (n / 5) * 700_000,
                tags: vec!["ml_app:b".to_owned(), "session_id:b".to_owned()],
                ..Span::default()
            })
            .collect()
    }

    #[rstest]
    #[case(&[], "")]
    #[case(&[("trace_id", "b")], "")]
    #[case(&[("span_id", "11")], "@ml_app:b")]
    #[case(&[("session_id", "b")], "")]
    #[case(&[("apm", "a")], "@status:ok")]
    #[case(&[("ml_app", "b")], "@session_id:b")]
    #[case(&[("ml_app", "nowhere")], "")]
    #[case(&[("name", "a"), ("kind", "tool")], "")]
    #[case(&[("roots", "")], "@meta.span.kind:step")]
    #[case(&[], "@status:error @parent_id:undefined")]
    fn a_row_at_hand_is_judged_as_one_in_the_tables(
        #[case] filters: &[(&str, &str)],
        #[case] query: &str,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path(), Durability::Process).unwrap();
        let spans = spans();
        store.append(spans.clone()).unwrap();
        let reader = open_reader(&folder.path().join("llmobs.db")).unwrap();
        let given = |name: &str| {
            let (_, value) = filters.iter().find(|(given, _)| *given == name)?;
            Some((*value).to_owned())
        };
        let places: Vec<Position> = spans
            .iter()
            .map(|span| {
                let sql = "SELECT start, id FROM spans WHERE span_id = ?";
                let place = |row: &rusqlite::Row<'_>| {
                    Ok(Position {
                        start_ns: row.get(0)?,
                        id: row.get(1)?,
                    })
                };
                reader
                    .query_row(sql, [span.span_id.as_str()], place)
                    .unwrap()
            })
            .collect();
        let windows = [(0, 100), (2, 4), (3, 3), (9, 2)];
        let afters = [None, Some(places[17]), Some(places[40])];
        let (mut kept, mut dropped) = (0, 0);
        for ((from_ms, to_ms), (after, newest_first)) in windows
            .into_iter()
            .flat_map(|window| afters.map(|after| (window, after)))
            .flat_map(|(window, after)| [true, false].map(|newest| (window, (after, newest))))
        {
            let search = Search {
                query: Some(llmobs_core::query::parse(query).unwrap()),
                filters: SpanFilters {
                    trace_id: given("trace_id"),
                    span_id: given("span_id"),
                    session_id: given("session_id"),
                    ml_app: given("ml_app"),
                    span_name: given("name"),
                    span_kind: given("kind"),
                    root_spans_only: given("roots").is_some(),
                    ..SpanFilters::default()
                },
                apm_trace_id: given("apm"),
                after,
                newest_first,
                ..Search::within(TimeWindow { from_ms, to_ms })
            };
            let narrowed = narrow(&search);
            for (span, place) in spans.iter().zip(&places) {
                let (sql, parameters) = narrowed.check(place.id);
                let mut statement = reader.prepare_cached(&sql).unwrap();
                let in_tables = statement
                    .exists(rusqlite::params_from_iter(parameters))
                    .unwrap();
                let at_hand = narrowed.holds(place.id, &Row::of(span));
                assert_eq!(at_hand, in_tables, "{span:?} {search:?}");
                if at_hand {
                    kept += 1;
                } else {
                    dropped += 1;
                }
            }
        }
        assert!(dropped > 0 && (kept > 0 || given("ml_app").as_deref() == Some("nowhere")));
    }
}
