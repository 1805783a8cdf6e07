"""The hash of a span does not depend on where its tokens are cut."""

import numpy as np

from xtoken_jax.align.tables import ByteTable, power

_MODULUS = 1 << 64


def slow_hash(content):
    multiplier = int(power(np.array([1]))[0])
    return sum((byte + 1) * multiplier**i for i, byte in enumerate(content)) % _MODULUS


def test_powers_are_those_of_the_multiplier():
    multiplier = int(power(np.array([1]))[0])
    positions = [0, 1, 2, (1 << 18) - 1, 1 << 18, (1 << 18) + 1, 10_000_019]
    expected = [pow(multiplier, position, _MODULUS) for position in positions]
    assert power(np.array(positions)).tolist() == expected


def test_table_of_a_real_tokenizer(tokenizer):
    smollm = tokenizer("smollm2-135m")
    table = ByteTable.of(smollm)
    assert table is ByteTable.of(smollm)
    for id in (*range(0, 49152, 977), smollm.id_of_bytes[b" apples"]):
        content = smollm.token_bytes[id]
        for key, spelt in ((id, content), (id + smollm.num_tokens, content[1:])):
            assert table.lengths_K[key] == len(spelt)
            assert table.hashes_K[key] == slow_hash(spelt)
            start = table.starts_K[key]
            assert bytes(table.bytes_N[start : start + len(spelt)]) == spelt
        assert table.roles_K[id] == smollm.roles.get(id, 0)
