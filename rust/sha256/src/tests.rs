//! Both implementations against published values and against each other, whatever the environment says.

use proptest::prelude::*;

use crate::seeds;
use crate::{Block, State, compress, lanes, one_by_one, two_lanes};

/// Initial state (FIPS 180-4, section 5.3.3).
const INITIAL_STATE: State =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The file, or the page of the examples, of a value; the message in hex; its digest.
const PUBLISHED: [(&str, &str, &str); 11] = [
    // NIST, "Cryptographic Standards and Guidelines: Examples with Intermediate Values", SHA256.pdf, for FIPS 180-4.
    ("abc", "616263", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (
        "two blocks",
        "6162636462636465636465666465666765666768666768696768696a68696a6b696a6b6c6a6b6c6d6b6c6d6e6c6d6e6f6d6e6f706e6f7071",
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
    ),
    // NIST CAVP, "SHA Test Vectors for Hashing Byte-Oriented Messages", SHA256ShortMsg.rsp and SHA256LongMsg.rsp.
    ("Len = 0", "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ("Len = 8", "d3", "28969cdfa74a12c82f3bad960b0b000aca2ac329deea5c2328ebc6f2ba9802c1"),
    ("Len = 16", "11af", "5ca7133fa735326081558ac312c620eeca9970d1e70a4b95533d956f072d1f98"),
    ("Len = 24", "b4190e", "dff2e73091f6c05e528896c4c831b9448653dc2ff043528f6769437bc7b975c2"),
    ("Len = 32", "74ba2521", "b16aa56be3880d18cd41e68384cf1ec8c17680c45a02b1575dc1518923ae8b0e"),
    (
        "Len = 504",
        "e2f76e97606a872e317439f1a03fcd92e632e5bd4e7cbc4e97f1afc19a16fde92d77cbe546416b51640cddb92af996534dfd81edb17c4424\
         cf1ac4d75aceeb",
        "18041bd4665083001fba8c5411d2d748e8abbfdcdfd9218cb02b68a78e7d4c23",
    ),
    (
        "Len = 512",
        "5a86b737eaea8ee976a0a24da63e7ed7eefad18a101c1211e2b3650c5187c2a8a650547208251f6d4237e661c7bf4c77f335390394c37fa1\
         a9f9be836ac28509",
        "42e61e174fbb3897d6dd6cef3dd2802fe67b331953b06114a65c772859dfc1aa",
    ),
    (
        "Len = 1304",
        "451101250ec6f26652249d59dc974b7361d571a8101cdfd36aba3b5854d3ae086b5fdd4597721b66e3c0dc5d8c606d9657d0e323283a5217\
         d1f53f2f284f57b85c8a61ac8924711f895c5ed90ef17745ed2d728abd22a5f7a13479a462d71b56c19a74a40b655c58edfe0a188ad2cf46\
         cbf30524f65d423c837dd1ff2bf462ac4198007345bb44dbb7b1c861298cdf61982a833afc728fae1eda2f87aa2c9480858bec",
        "3c593aa539fdcdae516cdf2f15000f6634185c88f505b39775fb9ab137a10aa2",
    ),
    // The same 896 bits as in the examples for SHA-512, of which SHA256.pdf has the digest, too.
    (
        "896 bits",
        "61626364656667686263646566676869636465666768696a6465666768696a6b65666768696a6b6c666768696a6b6c6d6768696a6b6c6d6e\
         68696a6b6c6d6e6f696a6b6c6d6e6f706a6b6c6d6e6f70716b6c6d6e6f7071726c6d6e6f707172736d6e6f70717273746e6f707172737475",
        "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1",
    ),
];

fn bytes_of(hex: &str) -> Vec<u8> {
    hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Return a message with its padding (FIPS 180-4, section 5.1.1).
fn blocks_of(message: &[u8]) -> Vec<Block> {
    let mut padded = [message, &[0x80]].concat();
    padded.resize((message.len() + 9).next_multiple_of(64) - 8, 0);
    padded.extend((message.len() as u64 * 8).to_be_bytes());
    padded.as_chunks::<64>().0.to_vec()
}

/// The compression of two lanes by each implementation, block by block.
type Pair = fn(&mut [State; 2], &[[Block; 1]; 2]);

fn implementations() -> Vec<(&'static str, Pair)> {
    let mut found: Vec<(_, Pair)> = vec![
        ("one by one", |states, messages| one_by_one(states, messages)),
        ("chosen", |states, messages| compress(states, messages)),
    ];
    if two_lanes::is_supported() {
        found.push(("two lanes", |states, messages| two_lanes::compress_pair(states, messages)));
    }
    found
}

/// Return the digests of two messages, which need not have the same number of blocks.
fn digests_of(pair: Pair, messages: [&[u8]; 2]) -> [String; 2] {
    let blocks = messages.map(blocks_of);
    let mut states = [INITIAL_STATE; 2];
    for index in 0..blocks[0].len().max(blocks[1].len()) {
        let before = states;
        let block = |lane: usize| [blocks[lane].get(index).copied().unwrap_or([0xa5; 64])];
        pair(&mut states, &[block(0), block(1)]);
        for lane in 0..2 {
            if index >= blocks[lane].len() {
                states[lane] = before[lane];
            }
        }
    }
    states.map(|state| state.map(|word| format!("{word:08x}")).concat())
}

#[test]
fn each_lane_gives_the_published_digests() {
    for (name, pair) in implementations() {
        for (of_first, first, first_digest) in PUBLISHED {
            for (of_second, second, second_digest) in PUBLISHED {
                let found = digests_of(pair, [&bytes_of(first), &bytes_of(second)]);
                assert_eq!(found, [first_digest, second_digest], "{name}: {of_first}, {of_second}");
            }
        }
    }
}

#[test]
fn a_million_letters_give_the_published_digest() {
    // The third example of SHA256.pdf.
    let letters = vec![b'a'; 1_000_000];
    for (name, pair) in implementations() {
        let found = digests_of(pair, [&letters, b"abc"]);
        assert_eq!(found[0], "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0", "{name}");
        assert_eq!(found[1], PUBLISHED[0].2, "{name}");
    }
}

/// Compare both implementations, and the one that the environment chooses, with `sha2` on messages of `BLOCKS` blocks.
fn require_equal<const BLOCKS: usize>(states: &[State], bytes: &[u8]) {
    let byte = |place: usize| bytes[place % bytes.len()].wrapping_add(u8::try_from(place / bytes.len() % 251).unwrap());
    let block = |lane: usize, block: usize| std::array::from_fn(|i| byte((lane * BLOCKS + block) * 64 + i));
    let messages: Vec<[Block; BLOCKS]> =
        (0..states.len()).map(|lane| std::array::from_fn(|index| block(lane, index))).collect();
    let mut expected = states.to_vec();
    for (state, message) in expected.iter_mut().zip(&messages) {
        sha2::block_api::compress256(state, message);
    }
    let mut chosen = states.to_vec();
    compress(&mut chosen, &messages);
    assert_eq!(chosen, expected);
    if two_lanes::is_supported() {
        for first in 0..states.len().saturating_sub(1) {
            let mut pair = [states[first], states[first + 1]];
            two_lanes::compress_pair(&mut pair, &[messages[first], messages[first + 1]]);
            assert_eq!(pair, [expected[first], expected[first + 1]]);
        }
    }
}

proptest! {
    #![proptest_config(seeds::searching(400))]

    #[test]
    fn every_number_of_lanes_and_blocks_is_compressed_as_by_sha2(
        states in prop::collection::vec(any::<State>(), 0..10),
        bytes in prop::collection::vec(any::<u8>(), 1..700),
    ) {
        require_equal::<0>(&states, &bytes);
        require_equal::<1>(&states, &bytes);
        require_equal::<2>(&states, &bytes);
        require_equal::<3>(&states, &bytes);
        require_equal::<4>(&states, &bytes);
        require_equal::<7>(&states, &bytes);
    }
}

#[test]
fn lanes_are_counted_as_the_environment_and_the_processor_say() {
    let is_off = std::env::var("QED_SHA256_LANES").is_ok_and(|lanes| lanes == "1");
    assert_eq!(lanes(), if two_lanes::is_supported() && !is_off { 2 } else { 1 });
}

#[test]
#[should_panic(expected = "each lane is a state and a message")]
fn a_state_without_a_message_is_refused() {
    compress::<1>(&mut [INITIAL_STATE; 2], &[[[0; 64]]]);
}
