//! The SQL that selects the rows a search has to look at, in order: the structured filters, the
//! window, the position to continue after, and the terms of the query that name a column.
//!
//! SQL filters and orders. Tags, text and evaluations are compared on each span. A condition taken
//! from the query must never exclude a row that the query matches, so only exact values of columns
//! that cannot be empty are used, and only where they must hold.

use rusqlite::types::Value as Sql;

use super::rows::SpanColumns;
use super::{Search, SpanPosition};
use llmobs_core::model::ROOT_PARENT;
use llmobs_core::query::{Expr, Field, Pattern, Term};

/// The conditions of a search on the columns of `spans`, with their SQL and parameters.
pub(super) struct RowFilter {
    from_ns: i64,
    to_ns: i64,
    after: Option<SpanPosition>,
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

    fn value(self, row: &SpanColumns) -> Option<&str> {
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

    /// Whether few rows share a value, so that the index on this column beats the one on time.
    fn is_selective(self) -> bool {
        matches!(self, Column::Trace | Column::Session | Column::ApmTrace)
    }
}

impl Condition {
    fn holds(&self, row: &SpanColumns) -> bool {
        match self {
            Condition::Text(column, text) => column.value(row) == Some(text),
            Condition::Failed(failed) => row.err == *failed,
            Condition::Root => row.parent_id.is_none(),
        }
    }
}

impl RowFilter {
    fn and(&mut self, condition: &str, values: impl IntoIterator<Item = Sql>) {
        self.sql.push_str(" AND ");
        self.sql.push_str(condition);
        self.parameters.extend(values);
    }

    /// SQL that selects key and start of all matching rows, in order.
    pub(super) fn scan_sql(&self) -> (String, Vec<Sql>) {
        let sql = format!(
            "SELECT id, start FROM spans WHERE 1{}{}",
            self.sql, self.order
        );
        (sql, self.parameters.clone())
    }

    /// Whether a row matches that was not read from the tables.
    pub(super) fn matches(&self, id: i64, row: &SpanColumns) -> bool {
        let follows = self.after.is_none_or(|after| {
            let position = (row.start, id);
            let after = (after.start_ns, after.id);
            if self.newest_first {
                position < after
            } else {
                position > after
            }
        });
        follows
            && (self.from_ns..=self.to_ns).contains(&row.start)
            && self.conditions.iter().all(|condition| condition.holds(row))
    }

    /// SQL that selects the start of one row if it matches.
    pub(super) fn row_sql(&self, id: i64) -> (String, Vec<Sql>) {
        let sql = format!("SELECT start FROM spans WHERE id = ?{}", self.sql);
        let id = std::iter::once(Sql::Integer(id));
        (sql, id.chain(self.parameters.iter().cloned()).collect())
    }
}

/// Whether an SQL index selects the rows of a search so well that few others are read: the search
/// names an id, or nothing but the application and the window.
pub(super) fn sql_index_is_selective(search: &Search) -> bool {
    let filters = filter_conditions(search);
    let terms = search.query.as_ref().map_or(0, |query| match &query.root {
        Expr::All => 0,
        Expr::And(parts) => parts.len(),
        _ => 1,
    });
    let query = search.query.as_ref();
    let query = query.map(|query| query_conditions(&query.root));
    let query = query.unwrap_or_default();
    let all_are_columns = terms == query.len() && search.filters.tags.is_empty();
    let mut conditions = filters.iter().chain(&query);
    let by_id = |condition: &Condition| matches!(condition, Condition::Text(column, _) if column.is_selective());
    let by_app = |condition: &Condition| matches!(condition, Condition::Text(Column::App, _));
    conditions.clone().any(by_id) || all_are_columns && conditions.all(by_app)
}

/// The rows that a search has to look at, and their order.
pub(super) fn row_filter(search: &Search) -> RowFilter {
    let mut conditions = filter_conditions(search);
    if let Some(query) = &search.query {
        conditions.extend(query_conditions(&query.root));
    }
    // `+` keeps the planner from using an index on time where an id is more selective.
    let selective = conditions
        .iter()
        .any(|condition| matches!(condition, Condition::Text(column, _) if column.is_selective()));
    let start = if selective { "+start" } else { "start" };
    let direction = if search.newest_first { "DESC" } else { "ASC" };
    let from = search.window.from_ms.saturating_mul(1_000_000);
    let end = search.window.to_ms.saturating_mul(1_000_000);
    let end = end.saturating_add(999_999);
    // The next page starts at its position in the index, not at the end of the window.
    let (from_ns, to_ns) = match search.after {
        Some(after) if search.newest_first => (from, end.min(after.start_ns)),
        Some(after) => (from.max(after.start_ns), end),
        None => (from, end),
    };
    let mut filter = RowFilter {
        from_ns,
        to_ns,
        after: search.after,
        newest_first: search.newest_first,
        conditions: Vec::new(),
        sql: String::new(),
        order: format!(" ORDER BY {start} {direction}, id {direction}"),
        parameters: Vec::new(),
    };
    filter.and(
        &format!("{start} BETWEEN ? AND ?"),
        [Sql::Integer(from_ns), Sql::Integer(to_ns)],
    );
    for condition in &conditions {
        match condition {
            Condition::Text(column @ Column::App, text) if selective => {
                filter.and(&format!("+{}", column.sql()), [Sql::Text(text.clone())]);
            }
            Condition::Text(column, text) => filter.and(column.sql(), [Sql::Text(text.clone())]),
            Condition::Failed(true) => filter.and("err = 1", []),
            Condition::Failed(false) => filter.and("err = 0", []),
            Condition::Root => filter.and("parent_id IS NULL", []),
        }
    }
    filter.conditions = conditions;
    if let Some(after) = search.after {
        let sign = if search.newest_first { '<' } else { '>' };
        filter.and(
            &format!("({start}, id) {sign} (?, ?)"),
            [Sql::Integer(after.start_ns), Sql::Integer(after.id)],
        );
    }
    filter
}

fn filter_conditions(search: &Search) -> Vec<Condition> {
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

/// The conditions on columns that must hold for a query to match.
fn query_conditions(root: &Expr) -> Vec<Condition> {
    let parts = match root {
        Expr::And(parts) => parts.as_slice(),
        other => std::slice::from_ref(other),
    };
    parts.iter().filter_map(term_condition).collect()
}

fn term_condition(part: &Expr) -> Option<Condition> {
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

#[cfg(test)]
mod tests {
    use super::super::schema::{FILE_NAME, SCHEMA, open_writer};
    use super::super::{Durability, SpanWriter as _, SqliteStore};
    use super::*;
    use llmobs_core::model::{Span, Status, TimeWindow};
    use llmobs_core::query::combine::SpanFilters;
    use rstest::rstest;

    #[rstest]
    #[case("@trace_id:abc refund", 1)]
    #[case("@ml_app:\"my app\" AND (@status:error AND @span_id:7)", 3)]
    // A name may be empty; a tag is compared then.
    #[case("@name:search", 0)]
    #[case("@parent_id:undefined", 1)]
    #[case("@parent_id:17", 0)]
    #[case("@ml_app:a OR @ml_app:b", 0)]
    #[case("-@ml_app:a", 0)]
    #[case("ml_app:a", 0)]
    #[case("@ml_app:a*", 0)]
    #[case("@ml_app:(a OR b)", 0)]
    #[case("@ml_app:*", 0)]
    fn only_exact_terms_that_must_hold_become_conditions(
        #[case] text: &str,
        #[case] expected: usize,
    ) {
        let query = llmobs_core::query::parse(text).unwrap();
        assert_eq!(query_conditions(&query.root).len(), expected, "{text}");
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
    fn planner_uses_the_most_selective_index(
        #[case] id: &str,
        #[case] query: &str,
        #[case] expected: &str,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(FILE_NAME);
        let (connection, _) = open_writer(&file, Durability::Process).unwrap();
        let value = |name: &str| (name == id).then(|| "x".to_owned());
        let search = Search {
            query: Some(llmobs_core::query::parse(query).unwrap()),
            filters: SpanFilters {
                trace_id: value("trace_id"),
                session_id: value("session_id"),
                ..SpanFilters::default()
            },
            ..Search::within(TimeWindow {
                from_ms: 0,
                to_ms: 1,
            })
        };
        let (sql, parameters) = row_filter(&search).scan_sql();
        let plan: String = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .unwrap()
            .query_row(rusqlite::params_from_iter(parameters), |row| row.get(3))
            .unwrap();
        assert!(plan.contains(expected), "{plan}");
    }

    /// Spans that differ in every column. All have tags that replace missing columns.
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
    fn filter_treats_rows_in_memory_like_rows_in_the_table(
        #[case] filters: &[(&str, &str)],
        #[case] query: &str,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(directory.path(), Durability::Process).unwrap();
        let spans = spans();
        store.append(spans.clone()).unwrap();
        let reader = SCHEMA
            .open_reader(&directory.path().join(FILE_NAME))
            .unwrap();
        let filter_value = |name: &str| {
            let (_, value) = filters.iter().find(|(key, _)| *key == name)?;
            Some((*value).to_owned())
        };
        let positions: Vec<SpanPosition> = spans
            .iter()
            .map(|span| {
                let sql = "SELECT start, id FROM spans WHERE span_id = ?";
                let position = |row: &rusqlite::Row<'_>| {
                    Ok(SpanPosition {
                        start_ns: row.get(0)?,
                        id: row.get(1)?,
                    })
                };
                reader
                    .query_row(sql, [span.span_id.as_str()], position)
                    .unwrap()
            })
            .collect();
        let windows = [(0, 100), (2, 4), (3, 3), (9, 2)];
        let afters = [None, Some(positions[17]), Some(positions[40])];
        let (mut matched, mut rejected) = (0, 0);
        for ((from_ms, to_ms), (after, newest_first)) in windows
            .into_iter()
            .flat_map(|window| afters.map(|after| (window, after)))
            .flat_map(|(window, after)| [true, false].map(|newest| (window, (after, newest))))
        {
            let search = Search {
                query: Some(llmobs_core::query::parse(query).unwrap()),
                filters: SpanFilters {
                    trace_id: filter_value("trace_id"),
                    span_id: filter_value("span_id"),
                    session_id: filter_value("session_id"),
                    ml_app: filter_value("ml_app"),
                    span_name: filter_value("name"),
                    span_kind: filter_value("kind"),
                    root_spans_only: filter_value("roots").is_some(),
                    ..SpanFilters::default()
                },
                apm_trace_id: filter_value("apm"),
                after,
                newest_first,
                ..Search::within(TimeWindow { from_ms, to_ms })
            };
            let filter = row_filter(&search);
            for (span, position) in spans.iter().zip(&positions) {
                let (sql, parameters) = filter.row_sql(position.id);
                let mut statement = reader.prepare_cached(&sql).unwrap();
                let in_table = statement
                    .exists(rusqlite::params_from_iter(parameters))
                    .unwrap();
                let in_memory = filter.matches(position.id, &SpanColumns::from_span(span));
                assert_eq!(in_memory, in_table, "{span:?} {search:?}");
                if in_memory {
                    matched += 1;
                } else {
                    rejected += 1;
                }
            }
        }
        assert!(
            rejected > 0 && (matched > 0 || filter_value("ml_app").as_deref() == Some("nowhere"))
        );
    }
}
