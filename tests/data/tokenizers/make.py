"""Makes the files of this folder: small tokenizers of every style that nibble reads, texts, and the ids that the libraries
of Hugging Face and tiktoken give them. Needs the packages tokenizers and tiktoken and the program zstd. Usage: make.py"""
import base64
import json
import os
import subprocess

import tiktoken
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
SAMPLE = os.path.join(HERE, '../../../data/sample/state_of_the_union.txt.zst')
VOCABULARY = 420
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
CL100K = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]"
          r"|\s+(?!\S)|\s")
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
O200K = '|'.join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + CONTRACTIONS + '?',
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + CONTRACTIONS + '?',
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + TAIL
QWEN = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + TAIL
DEEPSEEK = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
            r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SPACE = '\u2581'

TEXTS = [
    '', ' ', 'a', 'Hello world', '  two  spaces   three ', "We're here; I'LL go, you'Ve won. it\u2019s 'tis 'S'\u017f",
    'tabs\t\tand\nlines\n\n\n  x\r\n\r\n y \n', '1 12 123 1234 12345 3.14 \u0661\u0662 \u2167 \u00bd',
    'for (int i = 0; i < n; ++i) { a[i] += b->c("x\\n"); }  // done\n\n    return;',
    '\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u3001\u6f22\u5b57\u3002 \u4e2d\u6587 \ud55c\uad6d\uc5b4',
    '\u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440 \u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05d0\u05b8',
    '\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \u00e9 e\u0301 \ufb01 \u212b \u1e9b\u0323 a\u0323\u0307 a\u0307\u0323',
    '\u0085 \u00a0 \u1680 \u180e \u2003 \u2028 \u202f \u3000x \u200b \ufeff', 'NUL \0 \x01 \x1b \x7f \ufffd \uffff \U0010ffff',
    '<|endoftext|> </s> <s> <unk> <0x41> <think>x</think> <think >[X]a [X] \u2581 \u2581\u2581a', 'a [R]   b [R] c[L]\n [L]  d',
    'GREAT WORK Xy aB ABc \u01c5 \u02b0', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',
    ' ' * 70, '\n' * 9, 'thethethethethethe people of the United States', 'ACGTACGTTTGACCA' * 6,
    '\U00016d63\U00016d67 \U0001e5d0 \U0002ebf0 \U00011f02', 'x\u200dy _under_score\u203f word\u24b6word the[W]the the [W] the',
]


def english():
    text = subprocess.run(['zstd', '-dc', SAMPLE], capture_output=True, check=True).stdout[:400_000].decode('utf-8', 'ignore')
    return text.split('\n')


def byte_level(prefix=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False)


def split(pattern, behavior='isolated', invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def save(tokenizer, name, **model):
    content = json.loads(tokenizer.to_str())
    content['model'].update(model)
    bytes_of = [f'<0x{byte:02X}>' for byte in range(256)]
    content['added_tokens'] = [token for token in content['added_tokens'] if token['content'] not in bytes_of]
    path = os.path.join(HERE, name + '.json')
    with open(path, 'w', encoding='utf-8') as file:
        json.dump(content, file, ensure_ascii=False, indent=None, separators=(',', ':'))
        file.write('\n')
    return path


def train_bytes(name, pre_tokenizer, normalizer=None, added=(), **model):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)
    tokenizer.train_from_iterator(english(), trainer)
    tokenizer.add_special_tokens(['<|endoftext|>'])
    tokenizer.add_tokens(list(added))
    return save(tokenizer, name, **model)


def train_characters(name, normalizer, pre_tokenizer, decoder, with_bytes=True, added=(), **model):
    tokenizer = Tokenizer(models.BPE(unk_token='<unk>'))
    tokenizer.normalizer = normalizer
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoder
    special = ['<unk>', '<s>', '</s>'] + ([f'<0x{byte:02X}>' for byte in range(256)] if with_bytes else [])
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY + len(special), special_tokens=special, limit_alphabet=60,
                                  show_progress=False)
    lines = [part for line in english()[:300] for part in line.replace(' ', ' \n').split('\n')]
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.add_tokens(list(added))
    return save(tokenizer, name, byte_fallback=with_bytes, fuse_unk=True, **model)


def sentencepiece_decoder(strips):
    steps = [decoders.Replace(SPACE, ' '), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence(steps + ([decoders.Strip(' ', 1, 0)] if strips else []))


def added_tokens():
    from tokenizers import AddedToken
    return [AddedToken('<think>', normalized=False), AddedToken('</think>', normalized=False), AddedToken('[X]'),
            AddedToken('[R]', rstrip=True), AddedToken('[L]', lstrip=True), AddedToken('[W]', single_word=True),
            AddedToken('word', single_word=True, normalized=False)]


def tokenizers():
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    yield train_bytes('gpt2', gpt2)
    yield train_bytes('prefix', pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True))
    yield train_bytes('llama3', pre_tokenizers.Sequence([split(LLAMA3), byte_level()]), ignore_merges=True)
    yield train_bytes('qwen', pre_tokenizers.Sequence([split(QWEN), byte_level()]), normalizers.NFC(), added_tokens())
    yield train_bytes('deepseek', pre_tokenizers.Sequence(
        [split(r'\p{N}{1,3}'), split('[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+'), split(DEEPSEEK), byte_level()]))
    yield train_bytes('cl100k', pre_tokenizers.Sequence([split(CL100K, 'removed', True), byte_level()]))
    yield train_bytes('digits', pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), split(r'[.,]', 'merged_with_previous'),
         split(r'[(\[]', 'merged_with_next'), split(r'[A-Z]', 'contiguous'), gpt2]), normalizers.NFKC())
    llama = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(' ', SPACE)])
    yield train_characters('llama2', llama, None, sentencepiece_decoder(True), added=added_tokens())
    yield train_characters('gemma', normalizers.Replace(' ', SPACE), pre_tokenizers.Split(' ', 'merged_with_previous'),
                           sentencepiece_decoder(False))
    yield train_characters('mistral', normalizers.Sequence([]), pre_tokenizers.Metaspace(prepend_scheme='first', split=False),
                           sentencepiece_decoder(True))
    yield train_characters('metaspace', normalizers.Sequence([]), pre_tokenizers.Metaspace(prepend_scheme='always'),
                           decoders.Metaspace(prepend_scheme='always'), with_bytes=False)


def main():
    ids = {}
    for path in tokenizers():
        tokenizer = Tokenizer.from_file(path)
        tokenizer.encode_special_tokens = True
        name = os.path.basename(path)
        ids[name] = [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]
        print(name, tokenizer.get_vocab_size())
    vocabulary = json.load(open(os.path.join(HERE, 'gpt2.json'), encoding='utf-8'))['model']['vocab']
    printable = list(range(0x21, 0x7F)) + list(range(0xA1, 0xAD)) + list(range(0xAE, 0x100))
    character = {chr(byte): byte for byte in printable}
    character.update({chr(0x100 + i): byte for i, byte in enumerate(b for b in range(256) if b not in printable)})
    ranks = {bytes(character[c] for c in token): rank for token, rank in vocabulary.items()}
    with open(os.path.join(HERE, 'ranks.tiktoken'), 'w', encoding='ascii') as file:
        for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
            file.write(f'{base64.b64encode(token).decode()} {rank}\n')
    for name, pattern in (('gpt2', GPT2), ('cl100k', CL100K), ('o200k', O200K), ('llama3', LLAMA3)):
        encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        ids['ranks.tiktoken ' + name] = [encoding.encode_ordinary(text) for text in TEXTS]
    with open(os.path.join(HERE, 'expected.json'), 'w', encoding='utf-8') as file:
        json.dump({'texts': TEXTS, 'ids': ids}, file, ensure_ascii=True, separators=(',', ':'))
        file.write('\n')


main()
