//! What checking arguments costs, by their size and by what is wrong with them:
//! `cargo bench -p weir-model --bench validate`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_model::schema::Validator;

/// Time spent on one figure.
const SPAN: Duration = Duration::from_millis(300);

fn per_round(mut round: impl FnMut()) -> Duration {
    (0..20).for_each(|_| round());
    let (start, mut rounds) = (Instant::now(), 0_u32);
    while start.elapsed() < SPAN {
        (0..20).for_each(|_| round());
        rounds += 20;
    }
    start.elapsed() / rounds
}

/// A value that fits, and one that does not.
fn measure(what: &str, schema: &Value, good: &Value, bad: &Value) {
    let validator = Validator::compile(schema).unwrap();
    assert!(validator.is_valid(good) && !validator.is_valid(bad), "{what}");
    let compile = per_round(|| drop(black_box(Validator::compile(schema))));
    let text = good.to_string();
    let parse = per_round(|| drop(black_box(serde_json::from_str::<Value>(&text))));
    let fits = per_round(|| {
        black_box(validator.is_valid(black_box(good)));
    });
    let told = per_round(|| {
        let bad = black_box(bad);
        black_box(validator.is_valid(bad) || validator.violations(bad).is_empty());
    });
    println!(
        "{what}, {} bytes: parsed in {parse:?}, fits {fits:?}, does not fit and is told why {told:?}; compiled once in {compile:?}",
        text.len()
    );
}

fn order() -> Value {
    let line = json!({"type": "object", "required": ["sku", "count"], "additionalProperties": false,
        "properties": {"sku": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"},
            "count": {"type": "integer", "minimum": 1, "maximum": 100},
            "note": {"type": "string", "maxLength": 80}}});
    json!({"type": "object", "required": ["customer", "lines"], "additionalProperties": false,
        "properties": {"customer": {"type": "string", "minLength": 1},
            "priority": {"enum": ["low", "normal", "high"]},
            "ship": {"anyOf": [{"type": "null"}, {"type": "object", "required": ["city"],
                "properties": {"city": {"type": "string"}, "zip": {"type": "string"}}}]},
            "lines": {"type": "array", "minItems": 1, "items": line}}})
}

fn lines(count: usize, last: &str) -> Value {
    let mut lines: Vec<Value> = (0..count)
        .map(|at| json!({"sku": format!("AB-{:04}", at), "count": 1 + at % 100, "note": "as before"}))
        .collect();
    lines.push(json!({"sku": last, "count": 1}));
    json!({"customer": "ada", "priority": "high", "ship": {"city": "Bern"}, "lines": lines})
}

fn deep(levels: usize, inner: Value) -> Value {
    (0..levels).fold(inner, |value, _| json!({"child": value, "name": "n"}))
}

fn main() {
    let small = json!({"type": "object", "required": ["n"], "properties": {
        "n": {"type": "integer", "minimum": 1}, "text": {"type": "string", "maxLength": 200}}});
    measure("small", &small, &json!({"n": 3, "text": "hello"}), &json!({"n": 0, "text": "hello"}));
    measure("medium", &order(), &lines(10, "ZZ-0001"), &lines(10, "zz"));
    measure("large", &order(), &lines(2_000, "ZZ-0001"), &lines(2_000, "zz"));
    let tree = json!({"type": "object", "properties": {"name": {"type": "string"},
        "child": {"$ref": "#"}}, "required": ["name"]});
    measure("deep", &tree, &deep(60, json!({"name": "n"})), &deep(60, json!({})));
    let hostile = json!({"type": "object", "properties": {"s": {"pattern": "^(a|aa)+(?!x)$"}}});
    let text = json!({"s": format!("{}b", "a".repeat(1_000))});
    measure("hostile pattern", &hostile, &json!({"s": "aa"}), &text);
}
