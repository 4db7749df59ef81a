use super::*;

fn settings(dir: &Path, segment_bytes: u64, segments: usize) -> FileSettings {
    FileSettings { dir: dir.to_owned(), segment_bytes, segments }
}

fn names(dir: &Path) -> Vec<u64> {
    list(dir).unwrap().into_iter().map(|(number, _)| number).collect()
}

fn content(dir: &Path) -> String {
    let read = |(_, path): &(u64, PathBuf)| fs::read_to_string(path).unwrap();
    list(dir).unwrap().iter().map(read).collect()
}

#[test]
fn a_full_segment_is_followed_by_the_next_and_the_oldest_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut segments = Segments::open(settings(dir.path(), 10, 3)).unwrap();
    for line in ["one\n", "two\n", "three\n", "four\n", "longer than a segment\n", "six\n"] {
        segments.append(line.as_bytes()).unwrap();
    }
    assert_eq!(names(dir.path()), [3, 4, 5]);
    assert!(content(dir.path()).ends_with("longer than a segment\nsix\n"));
    drop(segments);
    let mut segments = Segments::open(settings(dir.path(), 1_000, 3)).unwrap();
    segments.append(b"seven\n").unwrap();
    assert!(content(dir.path()).ends_with("six\nseven\n"));
}

#[test]
fn a_torn_line_is_set_aside_and_the_rest_stays() {
    for torn in [&b"{\"half\":"[..], &[0; 70_000]] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit-000000000007.jsonl");
        let whole = b"{\"metadata\":{\"uid\":\"n/41/1\"}}\n{\"metadata\":{\"uid\":\"n/42/1\"}}\n";
        fs::write(&path, [whole, torn].concat()).unwrap();
        let mut segments = Segments::open(settings(dir.path(), 1 << 20, 9)).unwrap();
        assert_eq!(segments.newest_epoch(), Some(42));
        segments.append(b"next\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), [&whole[..], b"next\n"].concat());
        let kept = fs::read(path.with_extension("torn")).unwrap();
        assert!(torn.starts_with(&kept) && !kept.is_empty());
    }
}

#[test]
fn a_second_writer_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = Segments::open(settings(dir.path(), 10, 3)).unwrap();
    let second = Segments::open(settings(dir.path(), 10, 3));
    assert!(matches!(second, Err(FileError::InUse(_))));
    drop(first);
    Segments::open(settings(dir.path(), 10, 3)).unwrap();
}

#[test]
fn a_full_disk_fails_the_write_and_is_left_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit-000000000001.jsonl");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let mut segments = Segments::open(settings(dir.path(), 1 << 20, 9)).unwrap();
    let error = segments.append(b"one\n").unwrap_err().to_string();
    assert!(error.contains("cannot write") && error.contains("space"), "{error}");
    assert!(segments.append(b"one\n").is_err());
    fs::remove_file(&path).unwrap();
    segments.append(b"one\n").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"one\n");
    assert!(segments.sync_target().0.is_some(), "nothing was unsynced when the disk was full");
}

#[test]
fn what_was_unsynced_in_a_lost_segment_fails_the_next_flush_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut segments = Segments::open(settings(dir.path(), 1 << 20, 9)).unwrap();
    segments.append(b"one\n").unwrap();
    // A handle that takes nothing and cannot be cut back stands for a disk that went away.
    let gone = fs::OpenOptions::new().append(true).open("/dev/full").unwrap();
    segments.current.as_mut().unwrap().file = Arc::new(gone);
    assert!(segments.append(b"two\n").is_err());
    segments.append(b"two\n").unwrap();
    assert!(segments.sync_target().0.is_none());
    assert!(segments.sync_target().0.is_some());
    assert_eq!(content(dir.path()), "one\ntwo\n");
}

#[test]
fn after_a_failed_sync_writing_goes_on_in_a_new_segment() {
    let dir = tempfile::tempdir().unwrap();
    let mut segments = Segments::open(settings(dir.path(), 1 << 20, 9)).unwrap();
    segments.append(b"one\n").unwrap();
    segments.sync_target().1.store(true, Ordering::Release);
    segments.append(b"one\n").unwrap();
    segments.append(b"two\n").unwrap();
    assert_eq!(names(dir.path()), [1, 2]);
    assert_eq!(content(dir.path()), "one\none\ntwo\n");
}

#[test]
fn foreign_files_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["audit-x.jsonl", "audit-1.json", "notes.txt"] {
        fs::write(dir.path().join(name), "not ours").unwrap();
    }
    let mut segments = Segments::open(settings(dir.path(), 1, 1)).unwrap();
    segments.append(b"one\n").unwrap();
    segments.append(b"two\n").unwrap();
    assert_eq!(names(dir.path()), [2]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 5);
}
