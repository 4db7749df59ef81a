use std::fs;
use std::io::Write;

use super::*;

fn line(n: u64) -> String {
    let (group, reason) = if n.is_multiple_of(2) { ("even", "success") } else { ("odd", "denied") };
    format!(
        "{{\"metadata\":{{\"uid\":\"n/1/{n}\",\"tenant_uid\":\"{group}\"}},\"time\":{n},\
         \"status_code\":\"{reason}\",\"resources\":[{{\"name\":\"search\"}}]}}\n"
    )
}

fn segment(dir: &Path, number: u64, content: &str) -> PathBuf {
    let path = dir.join(format!("audit-{number:012}.jsonl"));
    fs::write(&path, content).unwrap();
    path
}

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    segment(dir.path(), 1, &(1..=3).map(line).collect::<String>());
    segment(dir.path(), 2, &(4..=5).map(line).collect::<String>());
    dir
}

fn times(entries: impl IntoIterator<Item = Result<Entry, ReadError>>) -> Vec<u64> {
    entries.into_iter().filter_map(Result::ok).map(|e| e.json["time"].as_u64().unwrap()).collect()
}

fn found(dir: &Path, query: Query) -> Vec<u64> {
    times(search(dir, query).unwrap())
}

#[test]
fn a_search_goes_through_all_segments_in_order() {
    let dir = folder();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(found(dir.path(), Query::default()), [1, 2, 3, 4, 5]);
    assert_eq!(found(dir.path(), Query { group: text("even"), ..Query::default() }), [2, 4]);
    let query = Query { status: text("denied"), since_ms: Some(2), ..Query::default() };
    assert_eq!(found(dir.path(), query), [3, 5]);
    let query = Query { target: text("search"), until_ms: Some(3), ..Query::default() };
    assert_eq!(found(dir.path(), query), [1, 2]);
    assert_eq!(found(dir.path(), Query { principal: text("x"), ..Query::default() }), [0; 0]);
    assert_eq!(found(&dir.path().join("audit-000000000002.jsonl"), Query::default()), [4, 5]);
    assert!(entries(&dir.path().join("nothing")).is_err());
}

#[test]
fn the_tail_crosses_segments() {
    let dir = folder();
    let last = |n| times(tail(dir.path(), n).unwrap().into_iter().map(Ok));
    assert_eq!(last(0), [0; 0]);
    assert_eq!(last(1), [5]);
    assert_eq!(last(3), [3, 4, 5]);
    assert_eq!(last(99), [1, 2, 3, 4, 5]);
}

#[test]
fn broken_lines_are_told_with_their_place_and_passed() {
    let dir = tempfile::tempdir().unwrap();
    let long = "x".repeat(bounds::AUDIT_LINE_BYTES_MAX + 1);
    segment(dir.path(), 1, &format!("{}nonsense\n{long}\n{}{{\"torn", line(1), line(2)));
    segment(dir.path(), 2, &format!("{}{{\"being written", line(3)));
    let all: Vec<_> = entries(dir.path()).unwrap().collect();
    let told: Vec<String> =
        all.iter().filter_map(|entry| entry.as_ref().err()).map(ToString::to_string).collect();
    assert_eq!(times(all), [1, 2, 3]);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].contains("audit-000000000001.jsonl, line 2: no record"), "{told:?}");
    assert!(told[1].contains("line 3: the line is longer"), "{told:?}");
    assert!(told[2].contains("line 5: the line is torn off"), "{told:?}");
}

#[test]
fn following_sees_each_record_once_across_segments() {
    let dir = folder();
    let mut follow = Follow::from_end(dir.path()).unwrap();
    assert!(follow.poll(100).unwrap().is_empty());
    let second = dir.path().join("audit-000000000002.jsonl");
    let mut file = fs::OpenOptions::new().append(true).open(&second).unwrap();
    let (head, rest) = (&line(6)[..20], &line(6)[20..]);
    file.write_all(head.as_bytes()).unwrap();
    assert!(follow.poll(100).unwrap().is_empty());
    file.write_all(rest.as_bytes()).unwrap();
    file.write_all(line(7).as_bytes()).unwrap();
    segment(dir.path(), 3, &line(8));
    segment(dir.path(), 4, &line(9));
    assert_eq!(times(follow.poll(1).unwrap()), [6]);
    assert_eq!(times(follow.poll(100).unwrap()), [7, 8, 9]);
    fs::remove_file(dir.path().join("audit-000000000004.jsonl")).unwrap();
    segment(dir.path(), 5, &line(10));
    assert_eq!(times(follow.poll(100).unwrap()), [10]);
}

#[test]
fn following_an_empty_folder_starts_with_its_first_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut follow = Follow::from_end(dir.path()).unwrap();
    assert!(follow.poll(10).unwrap().is_empty());
    segment(dir.path(), 1, &line(1));
    assert_eq!(times(follow.poll(10).unwrap()), [1]);
}
