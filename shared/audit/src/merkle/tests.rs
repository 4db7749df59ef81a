use proptest::prelude::*;

use super::*;

fn leaves(count: u64) -> Vec<Hash> {
    (0..count).map(|n| leaf(&n.to_be_bytes())).collect()
}

fn tree(leaves: &[Hash]) -> Tree {
    let mut tree = Tree::default();
    leaves.iter().for_each(|leaf| tree.push(*leaf));
    tree
}

/// RFC 6962, 2.1, word by word.
fn by_the_book(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => sha256(&[], [&[], &[]]),
        [one] => *one,
        more => {
            let (left, right) = more.split_at(usize::try_from(split(more.len() as u64)).unwrap());
            node(by_the_book(left), by_the_book(right))
        }
    }
}

fn hashes(leaves: &[Hash], ranges: &[Range<u64>], known: usize) -> Option<Vec<Hash>> {
    let mut all = Ranges::new(ranges, &tree(&leaves[..known]));
    leaves[known..].iter().for_each(|leaf| all.push(*leaf));
    all.finish()
}

#[test]
fn known_roots() {
    // From the test vectors of certificate transparency.
    let inputs: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    let all: Vec<Hash> = inputs.iter().map(|input| leaf(input)).collect();
    let root = |n: usize| weir_model::id::Digest(tree(&all[..n]).root().0).hex();
    for (size, expect) in [
        (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
        (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
    ] {
        assert_eq!(root(size), expect, "{size} leaves");
    }
}

#[test]
fn the_root_is_that_of_the_book() {
    for count in 0..70 {
        let all = leaves(count);
        let tree = tree(&all);
        assert_eq!(tree.root(), by_the_book(&all), "{count}");
        assert_eq!(Tree::from_peaks(count, tree.peaks().to_vec()), Some(tree));
    }
    assert_eq!(Tree::from_peaks(3, leaves(3)), None);
}

#[test]
fn every_leaf_of_small_trees_is_proved_from_any_start() {
    for size in 1..20u64 {
        let all = leaves(size);
        let root = tree(&all).root();
        for index in 0..size {
            let path = inclusion(index, size).unwrap();
            for known in 0..=usize::try_from(index).unwrap() {
                let proof = hashes(&all, &path, known).unwrap();
                let leaf = all[usize::try_from(index).unwrap()];
                assert!(includes((index, leaf), (size, root), &proof), "{index} of {size}");
            }
        }
        assert_eq!(inclusion(size, size), None);
    }
}

#[test]
fn every_growth_of_small_trees_is_proved_from_any_start() {
    for new in 1..20u64 {
        let all = leaves(new);
        for old in 1..new {
            let before = tree(&all[..usize::try_from(old).unwrap()]).root();
            let path = consistency(old, new).unwrap();
            for known in 0..=usize::try_from(old).unwrap() {
                let Some(proof) = hashes(&all, &path, known) else {
                    panic!("{old} to {new} from {known}")
                };
                assert!(continues((old, before), (new, tree(&all).root()), &proof), "{old} {new}");
            }
        }
    }
}

proptest! {
    #[test]
    fn a_proof_holds_for_its_own_leaf_and_tree_alone(
        size in 1..300u64, index in 0..300u64, other in 0..300u64, bit in 0..256usize,
    ) {
        let (index, other) = (index % size, other % size);
        let all = leaves(size);
        let root = tree(&all).root();
        let at = |n: u64| all[usize::try_from(n).unwrap()];
        let mut proof = hashes(&all, &inclusion(index, size).unwrap(), 0).unwrap();
        prop_assert!(includes((index, at(index)), (size, root), &proof));
        if other != index {
            prop_assert!(!includes((index, at(other)), (size, root), &proof));
            prop_assert!(!includes((other, at(index)), (size, root), &proof));
        }
        prop_assert!(!includes((index, at(index)), (size, at(0)), &proof) || size == 1);
        if let Some(hash) = proof.first_mut() {
            hash.0[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!includes((index, at(index)), (size, root), &proof));
        }
    }

    #[test]
    fn a_changed_past_has_no_consistency_proof(
        new in 2..300u64, old in 1..300u64, changed in 0..300u64,
    ) {
        let old = 1 + old % (new - 1);
        let changed = usize::try_from(changed % old).unwrap();
        let all = leaves(new);
        let before = tree(&all[..usize::try_from(old).unwrap()]).root();
        let mut other = all.clone();
        other[changed] = leaf(b"other");
        let proof = hashes(&other, &consistency(old, new).unwrap(), 0).unwrap();
        let root = tree(&other).root();
        prop_assert!(!continues((old, before), (new, root), &proof));
    }
}
