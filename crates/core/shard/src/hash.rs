//! The stable hash: which shard a key belongs to must be the same in every version and on every machine, for ever.
//! FNV-1a (64 bit) followed by the finaliser of MurmurHash3, which spreads FNV's weak low and high bits.
//! Knows nothing of shards.

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

fn fnv1a(state: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(state, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME))
}

fn finalise(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// The hash of `bytes`; never changes.
pub fn stable_hash(bytes: &[u8]) -> u64 {
    finalise(fnv1a(FNV_OFFSET, bytes))
}

/// The hash of two byte strings that keeps their border: `("ab", "c")` and `("a", "bc")` differ.
pub fn stable_hash_two(first: &[u8], second: &[u8]) -> u64 {
    let state = fnv1a(FNV_OFFSET, &(first.len() as u64).to_le_bytes());
    finalise(fnv1a(fnv1a(state, first), second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_fixed_for_ever() {
        assert_eq!(fnv1a(FNV_OFFSET, b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(FNV_OFFSET, b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(FNV_OFFSET, b"foobar"), 0x8594_4171_f739_67e8);
        assert_eq!(finalise(0), 0);
        assert_eq!(finalise(1), 0xb456_bcfc_34c2_cb2c);
        assert_eq!(stable_hash(b"heptad"), 0x8d4f_00db_3e13_a890);
    }

    #[test]
    fn borders_count() {
        assert_ne!(stable_hash_two(b"ab", b"c"), stable_hash_two(b"a", b"bc"));
    }
}
