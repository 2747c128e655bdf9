"""Checks the house: which folder and which room may include which, how large a room may be, where a source's header
stands, and that devices are chosen in one place. Usage: house.py check ROOT | self-test DIRECTORY"""
import os
import re
import shutil
import sys

# Folders whose files a folder may include. Nobody includes trainer.
FOLDERS = {
    'dist': ['dist'],
    'quant': ['dist', 'quant'],
    'model': ['dist', 'quant', 'model'],
    'optim': ['dist', 'quant', 'optim'],
    'data': ['dist', 'data'],
    'trainer': ['dist', 'quant', 'model', 'optim', 'data', 'trainer'],
}

# The rooms of a folder, lowest first: a file includes from its own room and from those before it. A name that is no
# folder stands for the files of that name ("model/cost": cost.h and cost.cpp). Where several fit, the longest counts.
ROOMS = {
    'dist': ['base', 'device', 'watch', 'ranks', 'zero'],
    'quant': ['format', 'recipe', 'tensor', 'isa', 'quantize/cpu', 'quantize/cuda', 'quantize', 'gemm/gemm_problem',
              'gemm/gemm_common', 'gemm/gemm_backend_kind', 'gemm/cpu', 'gemm/gemm_check', 'gemm/cuda', 'gemm', 'wire'],
    'model': ['config', 'ops/row', 'ops/attention', 'ops/loss', 'ops/norm', 'ops', 'layers', 'exchange', 'expert_exchange', 'blocks', 'cost', 'objectives',
              'text_cache', 'language_model'],
    'optim': ['schedule', 'optimizer', 'adamw', 'gradient_norm', 'oscillation'],
    'data': ['file_kind', 'shards', 'data_position', 'sampler', 'loader', 'mixture', 'patterns', 'text', 'tokenizers'],
    'trainer': ['yaml', 'config/user_path', 'config/config_files', 'config/recipe', 'config', 'compute', 'checkpoint', 'arrays',
                'huggingface', 'report', 'page', 'directory', 'record', 'state', 'memory', 'run', 'plan', 'inference', 'lab', 'bench',
                'tokenize', 'shell', 'rank_main', 'commands', 'main'],
}

LARGEST_ROOM = 25  # files
SUFFIXES = ('.h', '.inl', '.cpp', '.cu', '.cuh')
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]*)[">]', re.M)
CONDITIONAL = re.compile(r'^\s*#\s*(?:el)?if.*NIBBLE_WITH_CUDA', re.M)
DISPATCHER = 'dist/device/dispatch.h'
# Ends of a source's name that say for what it is compiled, not what it implements.
VARIANT = re.compile(r'_(portable|avx2|avx512|avx512_vnni|avx512_bf16)$')


def sources(root):
    for folder in FOLDERS:
        for path, folders, files in os.walk(os.path.join(root, folder)):
            folders[:] = [name for name in folders if name != 'third_party']
            for name in files:
                if name.endswith(SUFFIXES):
                    yield os.path.relpath(os.path.join(path, name), root)


def room_of(name):
    """The number of the room in its folder's list; None for a file that stands in no room."""
    folder, rest = name.split('/', 1)
    stem = os.path.splitext(rest)[0]
    fitting = [room for room in ROOMS[folder]
               if rest.startswith(room + '/') or stem == room or stem.startswith(room + '_')]
    return ROOMS[folder].index(max(fitting, key=len)) if fitting else None


def include_faults(name, text):
    folder, room = name.split('/')[0], room_of(name)
    if room is None:
        yield f'{name}: stands in no room of {folder}/; name its room in tests/dist/house.py, or move it'
    for quote, target in INCLUDE.findall(text):
        top = target.split('/')[0]
        if '/' not in target:
            if quote == '"':
                yield f'{name}: "{target}" lacks its folder'
        elif top in FOLDERS and top not in FOLDERS[folder]:
            yield f'{name}: {folder} may not include {target}'
        elif top == folder and room is not None:
            other = room_of(target)
            if other is not None and other > room:
                yield f'{name}: room {ROOMS[folder][room]} may not include {target} of room {ROOMS[folder][other]}'


def header_fault(name, text, headers):
    """A source implements the header of its own name, or one that names it, in its room or the room around it."""
    path, file = os.path.split(os.path.splitext(name)[0])
    around = [path, os.path.dirname(path)]
    stem = VARIANT.sub('', file)
    if any(f'{place}/{stem}{suffix}' in headers for place in around for suffix in ('.h', '.cuh')):
        return None
    named = re.compile(r'(?<![\w/])' + re.escape(os.path.basename(name)) + r'(?!\w)')
    if any(os.path.dirname(header) in around and named.search(opening) for header, opening in headers.items()):
        return None
    return f'{name}: no header of its name, and no header of its room names it in its opening comment'


def opening_comment(text):
    lines = text.splitlines()
    end = next((i for i, line in enumerate(lines) if not line.startswith('//')), len(lines))
    return '\n'.join(lines[:end])


def faults(root):
    texts = {name: open(os.path.join(root, name), encoding='utf-8').read() for name in sources(root)}
    headers = {name: opening_comment(text) for name, text in texts.items() if name.endswith(('.h', '.cuh', '.inl'))}
    sizes = {}
    for name, text in sorted(texts.items()):
        sizes[os.path.dirname(name)] = sizes.get(os.path.dirname(name), 0) + 1
        yield from include_faults(name, text)
        if name.endswith(('.cpp', '.cu')) and name != 'trainer/main.cpp':
            fault = header_fault(name, text, headers)
            if fault:
                yield fault
        expected = 1 if name == DISPATCHER else 0
        if len(CONDITIONAL.findall(text)) != expected:
            yield f'{name}: devices are chosen once, in {DISPATCHER}'
    for room, count in sorted(sizes.items()):
        if count > LARGEST_ROOM:
            yield f'{room}: {count} files in one room; {LARGEST_ROOM} are enough'


GOOD_TREE = {DISPATCHER: '#ifdef NIBBLE_WITH_CUDA\n', 'quant/gemm/gemm.h': '// Implemented in parts.cpp.\n',
             'quant/gemm/parts.cpp': '#include "quant/gemm/gemm.h"\n', 'quant/gemm/cpu/gemm_avx2.cpp': ''}
OFFENCES = [
    {'dist/base/error.h': '#include "quant/tensor/tensor.h"'},
    {'quant/format/a.h': '# include "model/config.h"'},
    {'model/ops/a.h': '#include <trainer/run/loop.h>'},
    {'optim/schedule.h': '#include "model/config.h"'},
    {'data/loader.h': '#include "quant/format/dtype.h"'},
    {'quant/format/a.h': '#include "tensor.h"'},
    {'model/ops/a.h': '#if defined(NIBBLE_WITH_CUDA)'},
    {'quant/format/a.h': '#include "quant/gemm/gemm.h"'},
    {'quant/gemm/cpu/gemm_a.h': '#include "quant/gemm/gemm.h"'},
    {'model/a.h': ''},
    {'quant/gemm/other.cpp': ''},
    {f'data/text/a{i}.h': '' for i in range(LARGEST_ROOM + 1)},
]


def faults_of_tree(work, tree):
    shutil.rmtree(work, ignore_errors=True)
    for name, text in tree.items():
        path = os.path.join(work, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'w', encoding='utf-8') as file:
            file.write(text)
    return list(faults(work))


def self_test(work):
    """A good tree has no faults, and each kind of offence is one."""
    found = faults_of_tree(work, GOOD_TREE)
    if found:
        sys.exit('a good tree is called bad: ' + '; '.join(found))
    for offence in OFFENCES:
        if not faults_of_tree(work, GOOD_TREE | offence):
            sys.exit(f'not noticed: {offence}')


def main():
    if sys.argv[1] == 'self-test':
        return self_test(sys.argv[2])
    found = list(faults(sys.argv[2]))
    print('\n'.join(found))
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())
