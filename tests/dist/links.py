"""Checks what texts point to: links and anchors of README.md and docs/*.md, paths in backticks there, and files that
comments of the sources name. Usage: links.py check ROOT | self-test DIRECTORY"""
import glob
import os
import re
import sys
import urllib.parse

FOLDERS = ('configs', 'data', 'dist', 'docs', 'model', 'optim', 'quant', 'scripts', 'tests', 'trainer')
SOURCES = ('.h', '.inl', '.cpp', '.cu', '.cuh')
LINK = re.compile(r'\[[^\]]*\]\(([^()\s]+)\)')
CODE = re.compile(r'`([^`]+)`')
PATH = re.compile(r'(?:%s)/[\w./*{},+-]*[\w}]' % '|'.join(FOLDERS))
COMMENT = re.compile(r'//.*')
# A file in a comment: a path of the tree, or the bare name of a source.
NAMED = re.compile(r'(?<![\w/.<*-])(?:(?:%s)/[\w./-]*\.(?:h|inl|cpp|cuh?|md|sh|py)|[a-z]\w*\.(?:inl|cpp|cuh?))\b'
                   % '|'.join(FOLDERS))


def lines_of(path):
    """The lines of a Markdown file as (number, text, whether inside a block of code)."""
    fenced = False
    with open(path, encoding='utf-8') as file:
        for number, line in enumerate(file, 1):
            if line.lstrip().startswith('```'):
                fenced = not fenced
                continue
            yield number, line.rstrip('\n'), fenced


def anchors_of(path):
    """The anchors that GitHub gives to the headings of a file."""
    anchors = set()
    for _, line, fenced in lines_of(path):
        heading = None if fenced else re.match(r'#+\s+(.*)', line)
        if not heading:
            continue
        slug = re.sub(r'[^\w\- ]', '', heading.group(1).strip().lower()).replace(' ', '-')
        number, anchor = 0, slug
        while anchor in anchors:
            number += 1
            anchor = f'{slug}-{number}'
        anchors.add(anchor)
    return anchors


def braces(path):
    """`a.{h,cpp}` stands for a.h and a.cpp."""
    found = re.search(r'\{([^{}]*)\}', path)
    if not found:
        return [path]
    return [full for part in found.group(1).split(',')
            for full in braces(path[:found.start()] + part + path[found.end():])]


def exists(root, path):
    return all(glob.glob(os.path.join(root, one)) for one in braces(path))


def bad_link(file, target):
    """Why a link does not resolve; None if it does, or if it leads elsewhere."""
    if re.match(r'[a-z]+:', target):
        return None
    path, _, anchor = target.partition('#')
    full = os.path.normpath(os.path.join(os.path.dirname(file), urllib.parse.unquote(path))) if path else file
    if not os.path.exists(full):
        return 'there is no such file'
    if anchor and anchor not in anchors_of(full):
        return 'there is no such heading'
    return None


def markdown_faults(root):
    files = [os.path.join(root, 'README.md')] + sorted(glob.glob(os.path.join(root, 'docs', '*.md')))
    for file in files:
        name = os.path.relpath(file, root)
        for number, line, fenced in lines_of(file):
            if fenced:
                continue
            for target in LINK.findall(line):
                why = bad_link(file, target)
                if why:
                    yield f'{name}:{number}: link to {target}: {why}'
            for code in CODE.findall(line):
                for path in code.split():
                    if PATH.fullmatch(path) and not exists(root, path):
                        yield f'{name}:{number}: `{path}` is not in the tree'


def comment_faults(root):
    sources = [os.path.join(place, name) for folder in FOLDERS for place, _, names in os.walk(os.path.join(root, folder))
               for name in names if name.endswith(SOURCES) and 'third_party' not in place]
    base_names = {os.path.basename(source) for source in sources}
    for source in sorted(sources):
        with open(source, encoding='utf-8') as file:
            for number, line in enumerate(file, 1):
                for comment in COMMENT.findall(line):
                    for path in NAMED.findall(comment):
                        there = os.path.exists(os.path.join(root, path)) if '/' in path else path in base_names
                        if not there:
                            yield f'{os.path.relpath(source, root)}:{number}: {path} is not in the tree'


def faults(root):
    return [*markdown_faults(root), *comment_faults(root)]


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w', encoding='utf-8') as file:
        file.write(text)


def self_test(work):
    """A small tree without faults, and the same tree with one fault of each kind."""
    write(f'{work}/README.md', '# Top\nsee [b](docs/b.md#a-heading-twice-1), [here](#top), `dist/x.{h,cpp}`, `dist/*.h`\n')
    write(f'{work}/docs/b.md', '# A heading, `twice`\n```\n# no heading\n[no link](nowhere.md)\n```\n'
                               '## A heading twice\n[up](../README.md) and [out](https://example.org/#x)\n')
    write(f'{work}/dist/x.h', '// See dist/x.cpp, x.cpp and docs/b.md.\n')
    write(f'{work}/dist/x.cpp', 'const char* url = "a.cpp";  // https://example.org/a/b.cpp and <y.cuh> lie elsewhere\n')
    found = faults(work)
    assert not found, found
    for path, before, after in (('README.md', 'docs/b.md#', 'docs/c.md#'), ('README.md', '-twice-1', '-twice-2'),
                                ('README.md', '(#top)', '(#no-heading)'), ('README.md', '{h,cpp}', '{h,cu}'),
                                ('README.md', '*.h', '*.inl'), ('docs/b.md', '../README.md', 'README.md'),
                                ('dist/x.h', 'dist/x.cpp', 'dist/y.cpp'), ('dist/x.h', ' x.cpp', ' y.cpp'),
                                ('dist/x.h', 'docs/b.md', 'docs/c.md')):
        with open(f'{work}/{path}', encoding='utf-8') as file:
            text = file.read()
        assert text.count(before) == 1, (path, before)
        write(f'{work}/{path}', text.replace(before, after))
        found = faults(work)
        write(f'{work}/{path}', text)
        assert len(found) == 1 and found[0].startswith(path + ':'), (path, after, found)
    return 0


def main():
    if sys.argv[1] == 'self-test':
        return self_test(sys.argv[2])
    found = faults(sys.argv[2])
    for fault in found:
        print(fault)
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())
