//! What it costs to seal and open tokens of sessions, and to seal a secret to a node.
//!
//! `cargo bench -p weir-model --bench seal` prints one line per figure.

#![allow(clippy::print_stdout)] // Its figures are its output.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use weir_model::seal::{NodeKey, Sealer, seal_to};
use weir_model::secret::Secret;

const ROUNDS: u32 = 20_000;

fn measure<T>(what: &str, work: impl Fn() -> T) {
    (0..ROUNDS / 10).for_each(|_| drop(black_box(work())));
    let started = Instant::now();
    (0..ROUNDS).for_each(|_| drop(black_box(work())));
    println!("{what}: {:?}", started.elapsed() / ROUNDS);
}

fn main() {
    let key = |id: &str, byte: u8| (id.to_owned(), Arc::new(Secret::new(vec![byte; 32])));
    let sealer = Sealer::new(&[key("k2", 2), key("k1", 1)]).expect("are keys");
    let before = Sealer::new(&[key("k1", 1)]).expect("is a key");
    let aad = b"acme\0billing\0principal-digest-of-32-bytes!!!";
    for bytes in [64, 512, 4_096] {
        let plain = vec![b'x'; bytes];
        let sealed = sealer.seal("session", aad, &plain).expect("fits");
        let older = before.seal("session", aad, &plain).expect("fits");
        measure(&format!("seal {bytes} bytes"), || sealer.seal("session", aad, &plain));
        measure(&format!("open {bytes} bytes"), || sealer.open("session", aad, &sealed));
        measure(&format!("open {bytes} bytes, key before"), || sealer.open("session", aad, &older));
    }
    let foreign = before.seal("cursor", aad, b"x").expect("fits");
    measure("refuse a token of another purpose", || sealer.open("session", aad, &foreign));
    let node = NodeKey::generate();
    let sealed = seal_to(node.public(), "id", b"a secret of a server").expect("is a key");
    measure("seal a secret to a node", || seal_to(node.public(), "id", b"a secret of a server"));
    measure("open it there", || node.open("id", &sealed));
}
