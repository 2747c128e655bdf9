"""Writes the tokens of one of nibble's shards in the layouts of other programs, from the descriptions of those.
Usage: foreign_shards.py SHARD llmc|modded|megatron|megatron32|npy|bare OUTPUT (a prefix for Megatron's pairs)"""
import struct
import sys
from array import array


def read_shard(path):
    """The ids of a shard with ids of two bytes, and the ends of its documents (docs/formats.md)."""
    with open(path, 'rb') as file:
        data = file.read()
    width, tokens, documents = struct.unpack_from('<IQQ', data, 12)
    assert data[:6] == b'NIBBLE' and width == 2
    ids = array('H', data[4096:4096 + 2 * tokens])
    return ids, struct.unpack_from(f'<{documents}Q', data, 4096 + 2 * tokens)


def llmc(ids, ends, output):
    header = [20240520, 1, len(ids)] + [0] * 253
    write(output, struct.pack('<256i', *header) + ids.tobytes())


def megatron(ids, ends, output, code=8, letter='H'):
    lengths = [end - begin for begin, end in zip((0,) + ends, ends)]
    width = struct.calcsize('<' + letter)
    index = b'MMIDIDX\0\0' + struct.pack('<QBQQ', 1, code, len(ends), len(ends) + 1)
    index += struct.pack(f'<{len(ends)}i', *lengths)
    index += struct.pack(f'<{len(ends)}q', *(width * begin for begin in ((0,) + ends)[:-1]))
    index += struct.pack(f'<{len(ends) + 1}q', *range(len(ends) + 1))
    write(output + '.idx', index)
    write(output + '.bin', struct.pack(f'<{len(ids)}{letter}', *ids))


def npy(ids, ends, output):
    header = f"{{'descr': '<u2', 'fortran_order': False, 'shape': ({len(ids)},), }}".ljust(117) + '\n'
    write(output, b'\x93NUMPY\1\0' + struct.pack('<H', len(header)) + header.encode() + ids.tobytes())


def write(path, content):
    with open(path, 'wb') as file:
        file.write(content)


WRITERS = {'llmc': llmc, 'modded': llmc, 'megatron': megatron, 'npy': npy,
           'megatron32': lambda ids, ends, output: megatron(ids, ends, output, 4, 'i'),
           'bare': lambda ids, ends, output: write(output, ids.tobytes())}

if __name__ == '__main__':
    WRITERS[sys.argv[2]](*read_shard(sys.argv[1]), sys.argv[3])
