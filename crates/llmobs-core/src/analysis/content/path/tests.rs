//! Valid, invalid and expensive paths.

use proptest::prelude::*;

use super::*;

fn conversation() -> Value {
    json!([
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a"},
    ])
}

fn messages(path: &str) -> Value {
    select(&conversation(), path, ContentField::Messages)
        .unwrap()
        .value
}

#[test]
fn messages_have_two_roots() {
    for path in [
        "$.messages[0].role",
        "$[0].role",
        "$.[0].role",
        "$['messages'][0].role",
    ] {
        assert_eq!(messages(path), json!("system"), "{path}");
    }
    assert_eq!(messages("$"), conversation());
    assert_eq!(messages("$.messages"), conversation());
    assert_eq!(
        messages("$[*].role"),
        json!(["system", "user", "assistant"])
    );
    assert_eq!(messages("$.messages[*].role"), messages("$[*].role"));
    assert_eq!(messages("$..messages[0].role"), json!(["system"]));
}

#[test]
fn negative_indexes_and_slices_count_from_the_end() {
    assert_eq!(messages("$.messages[-1].content"), json!("a"));
    assert_eq!(
        messages("$.[-2:]"),
        json!(conversation().as_array().unwrap()[1..])
    );
    assert_eq!(messages("$[-5:]"), conversation());
    assert_eq!(messages("$[1:3].content"), json!(["u", "a"]));
    assert_eq!(messages("$[::-1].content"), json!(["a", "u", "s"]));
    assert_eq!(messages("$.messages[-9]"), Value::Null);
}

#[test]
fn filters_wildcards_unions_and_descents_select_several_values() {
    assert_eq!(messages("$[?@.role=='user'].content"), json!(["u"]));
    assert_eq!(
        messages("$.messages[?search(@.content, '^[ua]')].role"),
        json!(["user", "assistant"])
    );
    assert_eq!(messages("$[?@.role == $[0].role].content"), json!(["s"]));
    assert_eq!(messages("$[0, 2].content"), json!(["s", "a"]));
    assert_eq!(messages("$..content"), json!(["s", "u", "a"]));
}

#[test]
fn singular_path_returns_value_and_other_paths_return_array() {
    let one = select(&conversation(), "$[0].role", ContentField::Messages).unwrap();
    assert_eq!(
        (one.singular, one.matched, one.value),
        (true, 1, json!("system"))
    );
    let none = select(&conversation(), "$[7]", ContentField::Messages).unwrap();
    assert_eq!(
        (none.singular, none.matched, none.value),
        (true, 0, Value::Null)
    );
    let many = select(&conversation(), "$[?@.role=='x']", ContentField::Messages).unwrap();
    assert_eq!(
        (many.singular, many.matched, many.value),
        (false, 0, json!([]))
    );
}

#[test]
fn parses_text_that_holds_json_only() {
    let json_text = json!(r#"{"results": [{"id": 7}]}"#);
    let found = select(&json_text, "$.results[0].id", ContentField::Output).unwrap();
    assert_eq!((found.value, found.plain_text), (json!(7), false));
    let text = json!("42 is the answer");
    let inside = select(&text, "$.answer", ContentField::Output).unwrap();
    assert_eq!((inside.matched, inside.plain_text), (0, true));
    let whole = select(&text, "$", ContentField::Output).unwrap();
    assert_eq!(whole.value, text);
}

#[test]
fn selects_from_documents_and_metadata() {
    let documents = json!([{"text": "a"}, {"text": "b"}]);
    for path in ["$.documents[1].text", "$[1].text", "$[-1].text"] {
        let found = select(&documents, path, ContentField::Documents).unwrap();
        assert_eq!(found.value, json!("b"), "{path}");
    }
    let metadata = json!({"a.b": 1, "messages": 2});
    let found = |path| {
        select(&metadata, path, ContentField::Metadata)
            .unwrap()
            .value
    };
    assert_eq!(found("$['a.b']"), json!(1));
    assert_eq!(found("$.messages"), json!(2));
}

#[test]
fn invalid_path_error_has_position_and_example() {
    let fail = |path: &str| select(&conversation(), path, ContentField::Messages).unwrap_err();
    let cases = [
        ("", 0, "empty"),
        ("messages[0]", 0, "must start with `$`"),
        ("$.messages[", 11, "too early"),
        ("$.messages[0", 12, "too early"),
        ("$.[0].a-b", 7, "['a-b']"),
        ("$.messages[x]", 11, "`x`"),
        ("$[?@.a ==]", 9, "`]`"),
    ];
    for (path, position, words) in cases {
        let error = fail(path);
        assert_eq!(error.position, position, "{path}: {error}");
        assert!(error.message.contains(words), "{path}: {error}");
        assert!(
            error.to_string().ends_with("$.messages[-1].content"),
            "{error}"
        );
    }
    for field in ContentField::ALL {
        assert!(select(&Value::Null, field.example_path(), field).is_ok());
    }
}

#[test]
fn rejects_expensive_paths_at_once() {
    let fail = |path: &str| select(&conversation(), path, ContentField::Messages).unwrap_err();
    assert_eq!(
        fail(&format!("${}", "[0]".repeat(10_000))).position,
        MAX_PATH_CHARS
    );
    let nested = format!("${}", "[?(".repeat(100));
    assert!(fail(&nested).message.contains("nested brackets"));
    let functions = format!("$[?{}@{}]", "length(".repeat(30), ")".repeat(30));
    assert!(fail(&functions).message.contains("nested functions"));
    let union = format!("${}", "[0,0,0,0,0,0,0,0]".repeat(50));
    let deep = json!([[[[[[[[[[[[[[1]]]]]]]]]]]]]]);
    let error = select(&deep, &union, ContentField::Documents).unwrap_err();
    assert!(error.message.contains("too much work"), "{error}");
}

#[test]
fn longest_paths_finish_in_time() {
    let fill = |unit: &str| {
        let times = (MAX_PATH_CHARS - 100) / unit.len();
        unit.repeat(times)
    };
    let value = json!([{"a": [{"a": [{"a": "aaaa"}]}]}]);
    let paths = [
        format!("$[?count(@[?length(@{})>1])>", fill(".a")),
        format!("$[?{}@.a", fill("!@.a&&")),
        format!("${}", "[?@".repeat(31)),
        format!("$[?{}@.a", "(".repeat(30)),
        format!("$[?length(value(@{}))=='", fill("[*]")),
        format!("${}", fill("..*")),
        format!("${}", fill("[*,*]")),
        format!("$[?match(@.a,'{}b')]", fill("(a*)*")),
        format!("$[?search(@.a,'{}')]", fill("\\\\w{99}")),
    ];
    let started = std::time::Instant::now();
    for path in &paths {
        let _either = select(&value, path, ContentField::Documents);
    }
    let took = started.elapsed();
    assert!(took.as_secs() < 20, "{took:?}");
}

#[test]
fn descents_reach_deeply_nested_values() {
    let mut deep = json!({"leaf": 1});
    for _ in 0..1_000 {
        deep = Value::Array(vec![deep]);
    }
    let found = select(&deep, "$..leaf", ContentField::Metadata).unwrap();
    assert_eq!(found.value, json!([1]));
    let error = select(&deep, "$..[?@..leaf]", ContentField::Metadata).unwrap_err();
    assert!(error.message.contains("nested"), "{error}");
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-c]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-c]", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_is_handled_without_panic(path in "\\PC{0,60}", value in value()) {
        for field in ContentField::ALL {
            if let Err(error) = select(&value, &path, field) {
                prop_assert!(error.position <= path.len());
                prop_assert!(path.is_char_boundary(error.position));
            }
        }
    }

    #[test]
    fn any_combination_of_path_tokens_is_handled_without_panic(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "$", ".", "..", "[", "]", "(", ")", "?", "@", "*", ":", "-1", "0", "9007199254740993",
                "a", "'a'", "'", "\"", "==", "&&", "||", "!", "length(", "count(", "search(",
                "match(", "value(", ",", " ", "\n", "'(a{9}){9}'", "\\", "é", "1.5e3",
            ]),
            0..24,
        ),
        value in value(),
    ) {
        let path = format!("${}", parts.concat());
        if let Err(error) = select(&value, &path, ContentField::Metadata) {
            prop_assert!(error.position <= path.len());
            prop_assert!(path.is_char_boundary(error.position));
        }
    }

    #[test]
    fn singular_path_selects_the_value_at_its_steps(
        value in value(),
        steps in prop::collection::vec(prop_oneof![
            "[a-c]".prop_map(Value::from), (0..4_i64).prop_map(Value::from)
        ], 0..5),
    ) {
        let mut path = "$".to_owned();
        let mut target = Some(&value);
        for step in &steps {
            match step.as_str() {
                Some(key) => {
                    path.push_str(&format!(".{key}"));
                    target = target.and_then(|value| value.as_object()?.get(key));
                }
                None => {
                    path.push_str(&format!("[{step}]"));
                    let index = usize::try_from(step.as_i64().unwrap()).unwrap();
                    target = target.and_then(|value| value.as_array()?.get(index));
                }
            }
        }
        let found = select(&value, &path, ContentField::Metadata).unwrap();
        prop_assert!(found.singular);
        prop_assert_eq!(found.matched, usize::from(target.is_some()));
        prop_assert_eq!(found.value, target.cloned().unwrap_or_default());
    }
}
