//! Every document of `deploy/examples` is one that the control plane would take.

use weir_model::resource::parse_documents;

use crate::house_rules::sources;

#[test]
fn examples_parse() {
    let mut counter = 0;
    let mut documents = 0;
    for example in sources(&[".yaml"]) {
        if !example.path.starts_with("deploy/examples/") {
            continue;
        }
        let mut next_id = || {
            counter += 1;
            format!("secret-{counter}")
        };
        match parse_documents(&example.text, &mut next_id) {
            Ok(found) => documents += found.len(),
            Err(errors) => panic!("{}: {errors:#?}", example.path),
        }
    }
    assert!(documents >= 10, "only {documents} documents below deploy/examples");
}
