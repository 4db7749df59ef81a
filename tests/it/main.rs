//! Tests of the whole: house rules, documents, examples, the command line, the product in one
//! process.

mod examples;
mod house_rules;
