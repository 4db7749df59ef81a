//! Schemas as hostile servers publish them, and values as hostile callers send them.
//!
//! What could overflow a stack runs in a child process, so that only its test fails.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use weir_model::bounds::{SCHEMA_PATTERN_STEPS_MAX, SCHEMA_WORK_MAX};
use weir_model::schema::Validator;

/// The schema is refused, and the reason has these words.
fn refused(schema: &Value, words: &str) {
    let started = Instant::now();
    match Validator::compile(schema) {
        Ok(_) => panic!("must be refused for: {words}"),
        Err(reason) => assert!(reason.contains(words), "{reason}"),
    }
    assert!(started.elapsed() < Duration::from_secs(5), "took {:?}", started.elapsed());
}

/// The schema compiles; the first value fits, the second breaks rules at these paths.
fn checks(schema: &Value, good: &Value, bad: &Value, paths: &[&str]) {
    let validator = Validator::compile(schema).unwrap_or_else(|e| panic!("{schema}: {e}"));
    assert!(validator.is_valid(good), "{schema}: {:?}", validator.violations(good));
    assert_eq!(validator.violations(good), []);
    assert!(!validator.is_valid(bad));
    let got: Vec<String> = validator.violations(bad).into_iter().map(|v| v.path).collect();
    assert_eq!(got, paths, "{schema}");
}

fn defs(count: usize, step: impl Fn(usize) -> Value, last: Value) -> Value {
    let mut defs: Map<String, Value> = (0..count).map(|i| (format!("a{i}"), step(i))).collect();
    defs.insert(format!("a{count}"), last);
    json!({"type": "object", "$ref": "#/$defs/a0", "$defs": defs})
}

fn nested(depth: usize, inner: Value, wrap: impl Fn(Value) -> Value) -> Value {
    (0..depth).fold(inner, |value, _| wrap(value))
}

fn next(i: usize) -> Value {
    json!({"$ref": format!("#/$defs/a{}", i + 1)})
}

#[test]
fn ordinary_schemas_work_in_each_dialect() {
    checks(
        &json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}},
                "required": ["n"], "additionalProperties": false}),
        &json!({"n": 1}),
        &json!({"n": 0, "x": 1}),
        &["/n", ""],
    );
    let tree = json!({"$id": "https://a.example/tree", "type": "object",
        "properties": {"left": {"$ref": "#"}, "right": {"$ref": "https://a.example/tree#"}}});
    checks(
        &tree,
        &json!({"left": {"right": {}}}),
        &json!({"left": {"right": 1}}),
        &["/left/right"],
    );
    for dialect in [
        "http://json-schema.org/draft-07/schema#",
        "http://json-schema.org/draft-04/schema",
        "https://json-schema.org/draft/2019-09/schema",
        "https://json-schema.org/draft/2020-12/schema",
    ] {
        let schema = json!({"$schema": dialect, "type": "object", "definitions": {"s": {"type": "string"}},
            "properties": {"a": {"$ref": "#/definitions/s"}}});
        checks(&schema, &json!({"a": ""}), &json!({"a": 1}), &["/a"]);
    }
    let anchored = json!({"type": "object", "properties": {"a": {"$ref": "#word"}},
        "$defs": {"w": {"$anchor": "word", "type": "string"}}});
    checks(&anchored, &json!({"a": ""}), &json!({"a": 1}), &["/a"]);
    let typed = nested(
        4,
        json!({"type": "string"}),
        |v| json!({"type": "object", "properties": {"c": v}, "unevaluatedProperties": false}),
    );
    checks(&typed, &json!({"c": {"c": {}}}), &json!({"c": {"d": 1}}), &["/c"]);
}

#[test]
fn each_dialect_means_what_it_says() {
    let draft = |name: &str| format!("http://json-schema.org/draft-{name}/schema#");
    let (d4, d6, d7) = (draft("04"), draft("06"), draft("07"));
    let d2019 = "https://json-schema.org/draft/2019-09/schema".to_owned();
    let d2020 = "https://json-schema.org/draft/2020-12/schema".to_owned();
    let tuple = json!({"items": [{"type": "integer"}], "additionalItems": false});
    let prefix = json!({"prefixItems": [{"type": "integer"}], "items": false});
    let sibling = json!({"properties": {"a": {"$ref": "#/definitions/s", "maxLength": 1}},
        "definitions": {"s": {"type": "string"}}});
    let unevaluated = json!({"allOf": [{"properties": {"a": {}}}], "unevaluatedProperties": false});
    let dependent = json!({"dependentRequired": {"a": ["b"]}});
    let needs = json!({"dependencies": {"a": ["b"]}});
    let below = json!({"maximum": 3, "exclusiveMaximum": true});
    let own =
        json!({"$id": "https://a.example/t", "properties": {"a": {"$ref": "#"}}, "type": "object"});
    // dialects in which a value fits, those in which it does not
    let table: Vec<(&Value, Value, Vec<&String>, Vec<&String>)> = vec![
        (&tuple, json!([1, 2]), vec![], vec![&d4, &d6, &d7, &d2019]),
        (&tuple, json!([1]), vec![&d4, &d6, &d7, &d2019], vec![]),
        // Unknown words are no rules.
        (&prefix, json!([1]), vec![&d2020], vec![&d4, &d6, &d7, &d2019]),
        (&prefix, json!([1, 2]), vec![], vec![&d2020]),
        // Up to draft 7 nothing counts beside a reference.
        (&sibling, json!({"a": "xy"}), vec![&d4, &d6, &d7], vec![&d2019, &d2020]),
        (&unevaluated, json!({"a": 1, "b": 2}), vec![&d4, &d6, &d7], vec![&d2019, &d2020]),
        (&dependent, json!({"a": 1}), vec![&d4, &d6, &d7], vec![&d2019, &d2020]),
        (&needs, json!({"a": 1}), vec![], vec![&d4, &d6, &d7]),
        (&below, json!(3), vec![], vec![&d4]),
        (&own, json!({"a": {"a": 1}}), vec![], vec![&d6, &d7, &d2019, &d2020]),
    ];
    for (schema, value, fits, breaks) in table {
        for (dialects, expected) in [(fits, true), (breaks, false)] {
            for dialect in dialects {
                let mut schema = schema.clone();
                schema["$schema"] = dialect.as_str().into();
                // Draft 4 has no boolean schemas.
                if dialect == &d4 && schema.to_string().contains(r#""items":false"#) {
                    continue;
                }
                let validator =
                    Validator::compile(&schema).unwrap_or_else(|e| panic!("{schema}: {e}"));
                assert_eq!(validator.is_valid(&value), expected, "{schema} {value}");
            }
        }
    }
    // Without a word it is 2020-12.
    assert!(!Validator::compile(&prefix).unwrap().is_valid(&json!([1, 2])));
    assert!(Validator::compile(&tuple.clone()).is_err(), "no array in 2020-12");
}

/// What patterns may cost is counted, not timed: steps of the engine that backtracks, and values
/// times patterns before anything is matched.
#[test]
fn hostile_patterns_are_bounded_by_counted_steps() {
    let compile = |pattern: &str| Validator::compile(&json!({"pattern": pattern})).unwrap();
    let text = |letters: usize, end: &str| json!(format!("{}{end}", "a".repeat(letters)));
    let unchecked = |validator: &Validator, value: &Value| {
        assert!(!validator.is_valid(value), "what cannot be checked does not fit");
        validator.violations(value).iter().any(|v| v.rule == "cannot be checked")
    };
    // Without look-around and references the engine is linear: a verdict for any length.
    for (pattern, last) in [
        ("^(a+)+$", "b"),
        ("^(a|aa)+$", "b"),
        ("^([a-z]+)*$", "!"),
        ("^(a|a?)+$", "b"),
        ("(.*)*$^x", ""),
    ] {
        let validator = compile(pattern);
        let long = text(1_000_000, last);
        assert!(!unchecked(&validator, &long), "{pattern} has a verdict");
    }
    // With them it may take as many steps as it likes, until they are used up.
    let validator = compile("^(a|aa)+(?!x)$");
    assert!(unchecked(&validator, &text(60, "b")), "it uses up its steps");
    assert!(unchecked(&validator, &text(100_000, "b")), "and no more than those");
    assert!(!unchecked(&validator, &text(2, "c")), "it has steps for short texts");
    assert!(validator.is_valid(&text(10, "")));
    // Nor do others hang, whichever engine takes them.
    for pattern in ["^(?=(a|aa)+$)a*c$", "^((a|aa)+)\\1b$", "^(a+)+(?<!x)c$", "(a*)*\\1{9}c"] {
        assert!(!compile(pattern).is_valid(&text(10_000, "d")), "{pattern}");
    }
    // A value with many texts is refused by its number of nodes, before the first is matched.
    let per_text = u64::try_from(SCHEMA_PATTERN_STEPS_MAX / 2).unwrap();
    let most = usize::try_from(SCHEMA_WORK_MAX / (per_text + 2)).unwrap();
    let list = Validator::compile(&json!({"items": {"pattern": "^a(?!b)"}})).unwrap();
    let rule = |count: usize| {
        let violations = list.violations(&vec![json!("b"); count].into());
        violations.into_iter().next().unwrap().rule
    };
    assert_eq!(rule(2 * most), "is too large to be checked");
    assert_ne!(rule(most / 2), "is too large to be checked");
    // The program of a pattern is bounded when it is compiled.
    refused(&json!({"pattern": "(?:a{1000}){1000}"}), "no valid schema");
    refused(&json!({"patternProperties": {"((a{100}){100}){100}": true}}), "no valid schema");
}

#[test]
fn violations_name_the_rule_and_never_the_value() {
    let schema = json!({"type": "object", "properties": {
        "card": {"type": "string", "maxLength": 4}, "pin": {"const": 7}, "kind": {"enum": ["a", "b"]},
        "tags": {"propertyNames": {"maxLength": 3}}, "code": {"pattern": "^x+$"},
        "list": {"prefixItems": [true], "items": false}, "any": {"anyOf": [{"type": "null"}]}},
        "additionalProperties": false});
    let value = json!({"card": "s3cret-4711", "pin": "s3cret", "kind": "s3cret", "tags": {"s3cret": 1},
        "code": "s3cret", "list": [1, "s3cret"], "any": "s3cret", "misspelt": "s3cret"});
    let violations = Validator::compile(&schema).unwrap().violations(&value);
    assert_eq!(violations.len(), 8, "{violations:#?}");
    for violation in &violations {
        assert!(!format!("{violation:?}").contains("s3cret"), "{violation:?}");
    }
    let rule = |path: &str| violations.iter().find(|v| v.path == path).unwrap().rule.clone();
    assert_eq!(rule("/card"), "value is longer than 4 characters");
    assert_eq!(rule("/kind"), "value is not one of \"a\" or \"b\"");
    assert_eq!(rule(""), "has properties that the schema does not name: misspelt");
}

#[test]
fn what_is_no_schema_is_refused() {
    refused(&json!("x"), "must be an object");
    refused(&json!({"type": "strin"}), "no valid schema");
    refused(&json!({"pattern": "("}), "no valid schema");
    refused(&json!({"$schema": "https://a.example/dialect"}), "no valid schema");
    refused(&json!({"type": "object", "properties": {"a": {"minLength": "3"}}}), "no valid schema");
}

#[test]
fn nothing_is_fetched() {
    for reference in [
        "http://127.0.0.1:1/s.json",
        "https://a.example/s",
        "file:///etc/passwd",
        "other.json",
        "#/$defs/missing",
        "#nowhere",
        "urn:x",
        "http://json-schema.org/draft-07/schema#",
    ] {
        refused(&json!({"type": "object", "properties": {"a": {"$ref": reference}}}), "reference");
    }
    let inner = json!({"properties": {"a": {"$id": "https://b.example/", "$ref": "#/x"}}});
    refused(&inner, "id of its own");
}

#[test]
fn shapes_that_explode_are_refused() {
    let twice = |i| json!({"allOf": [next(i), next(i)]});
    refused(&defs(27, twice, json!({})), "expands to more than");
    let below = |i| json!({"properties": {"a": next(i), "b": next(i)}});
    refused(&defs(27, below, json!({})), "expands to more than");
    let both = |i| json!({"if": next(i), "then": next(i), "else": next(i)});
    refused(&defs(27, both, json!({})), "expands to more than");
    let unevaluated = |v| {
        json!({"if": v, "then": {"unevaluatedProperties": {"type": "string"}},
        "unevaluatedProperties": {"type": "string"}})
    };
    refused(&nested(12, json!({}), unevaluated), "nests unevaluated");
    refused(&nested(40, json!({}), |v| json!({"not": v})), "nested deeper");
    let many: Map<String, Value> = (0..3_000).map(|i| (format!("p{i}"), json!({}))).collect();
    refused(&json!({"properties": many}), "more than 2000 subschemas");
    refused(&json!({"description": "x".repeat(300_000)}), "longer than");
    refused(&json!({"pattern": "(?:a{1000}){1000}"}), "no valid schema");
    let knot: Map<String, Value> = (0..60)
        .map(|i| {
            (
                format!("a{i}"),
                json!({"properties": (0..30).map(|j| {
            (format!("p{j}"), json!({"$ref": format!("#/$defs/a{}", (i * 7 + j * 11) % 60)}))
        }).collect::<Map<_, _>>()}),
            )
        })
        .collect();
    refused(&json!({"$ref": "#/$defs/a0", "$defs": knot}), "");
}

#[test]
fn schemas_that_apply_themselves_without_end_are_refused() {
    refused(&json!({"$ref": "#"}), "applies itself");
    refused(&json!({"allOf": [{"anyOf": [{"$ref": "#"}]}]}), "applies itself");
    let mutual = json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"not": {"$ref": "#/$defs/a"}}}});
    refused(&mutual, "applies itself");
}

/// What runs in a child process, by name.
fn case(name: &str) {
    let chain = |n| defs(n, |i| json!({"allOf": [next(i)]}), json!({"type": "object"}));
    match name {
        "a chain of ten thousand" => refused(&chain(10_000), "longer than"),
        "a chain of nine hundred" => refused(&chain(900), "in a row"),
        "a chain through members" => {
            let schema = defs(900, |i| json!({"properties": {"c": next(i)}}), json!({}));
            let validator = Validator::compile(&schema).unwrap();
            assert!(validator.is_valid(&nested(60, json!({}), |v| json!({"c": v}))));
        }
        "the longest run on the deepest value" => {
            for steps in [1, 7, 15, 30] {
                let last = json!({"properties": {"c": {"$ref": "#"}}});
                let schema = defs(steps, |i| json!({"allOf": [next(i)]}), last);
                let validator = Validator::compile(&schema).unwrap();
                for depth in [10, 14, 20, 40, 60, 62, 63, 100] {
                    let value = nested(depth, json!(1), |v| json!({"c": v}));
                    assert!(!validator.is_valid(&value));
                    assert!(!validator.violations(&value).is_empty());
                }
            }
        }
        "a tree that is walked twice at each level" => {
            let schema = json!({"type": "object", "allOf": [
                {"properties": {"c": {"$ref": "#"}}}, {"properties": {"c": {"$ref": "#"}}}]});
            let validator = Validator::compile(&schema).unwrap();
            assert!(validator.is_valid(&nested(62, json!({}), |v| json!({"c": v}))));
            let bad = nested(62, json!(1), |v| json!({"c": v}));
            assert!(!validator.is_valid(&bad));
            assert_eq!(validator.violations(&bad).len(), 1);
            assert_eq!(validator.violations(&json!({"c": 1}))[0].path, "/c");
        }
        "patterns that backtrack" => {
            let schema = json!({"items": {"pattern": "^(a|aa)+(?!x)$c"}});
            let validator = Validator::compile(&schema).unwrap();
            let text = |i| json!(format!("{}{i}", "a".repeat(40)));
            assert!(!validator.is_valid(&(0..1_000).map(text).collect()));
            assert!(!validator.is_valid(&(0..100_000).map(text).collect()));
            assert_eq!(validator.violations(&(0..100_000).map(text).collect()).len(), 1);
        }
        "large values" => {
            let words: Vec<String> = (0..10_000).map(|i| format!("w{i}")).collect();
            let schema =
                json!({"items": {"enum": words, "allOf": vec![json!({"minLength": 1}); 500]}});
            let validator = Validator::compile(&schema).unwrap();
            assert!(!validator.is_valid(&vec![json!(1); 1_000_000].into()));
            let plain = Validator::compile(&json!({"items": {"type": "integer"}})).unwrap();
            assert!(plain.is_valid(&vec![json!(1); 1_000_000].into()));
            let mut broken = vec![json!(1); 1_000_000];
            broken[999_999] = json!("x");
            assert_eq!(plain.violations(&broken.into())[0].path, "/999999");
        }
        _ => panic!("there is no case {name}"),
    }
}

const CASES: [&str; 7] = [
    "a chain of ten thousand",
    "a chain of nine hundred",
    "a chain through members",
    "the longest run on the deepest value",
    "a tree that is walked twice at each level",
    "patterns that backtrack",
    "large values",
];

#[test]
fn hostile_schemas_neither_hang_nor_abort() {
    let program = std::env::current_exe().unwrap();
    for name in CASES {
        let started = Instant::now();
        let child = Command::new(&program)
            .args(["--exact", "schemas::child", "--nocapture"])
            .env("WEIR_SCHEMA_CASE", name)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success(), "{name}: {}\n{text}", child.status);
        assert!(started.elapsed() < Duration::from_secs(30), "{name} took {:?}", started.elapsed());
    }
}

/// Not a test by itself: the other side of the test above, on a thread like a worker's.
#[test]
fn child() {
    let Ok(name) = std::env::var("WEIR_SCHEMA_CASE") else { return };
    let worker = std::thread::Builder::new().stack_size(2 * 1024 * 1024);
    worker.spawn(move || case(&name)).unwrap().join().unwrap();
}

#[test]
fn alternatives_are_told() {
    let reasons = json!({"oneOf": [
        {"const": "damaged", "description": "It came broken."},
        {"enum": ["late", "lost"]},
    ]});
    let ways = json!({"anyOf": [
        {"type": "null"},
        {"type": "object", "required": ["id"]},
        {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    ]});
    let schema = json!({"type": "object", "properties": {"reason": reasons, "to": ways}});
    let validator = Validator::compile(&schema).unwrap();
    for (value, path, rule) in [
        (json!({"reason": "s3cret"}), "/reason", "must be one of: \"damaged\", \"late\", \"lost\""),
        (
            json!({"to": {"name": 7}}),
            "/to",
            "fits none of the alternatives: value is not of type \"null\"; \
             \"id\" is a required property; /name: value is not of type \"string\"",
        ),
    ] {
        let [told] = &validator.violations(&value)[..] else { panic!("{value}") };
        assert_eq!((told.path.as_str(), told.rule.as_str()), (path, rule));
    }
    // However many there are, and however deep they are nested, the text is short.
    let mut deep = json!({"type": "null"});
    for _ in 0..12 {
        deep = json!({"anyOf": [deep, {"const": 1}, {"type": "boolean"}]});
    }
    let told = Validator::compile(&deep).unwrap().violations(&json!("x"));
    assert!(told[0].rule.len() < 450, "{}", told[0].rule);
}
