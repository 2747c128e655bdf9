#!/usr/bin/env python3
"""Prints the numbers of data/patterns/unicode_table.cpp: where each run of code points of one general category begins
(times 32), and the number of the category. Needs PyPI's unicodedata2, whose version is that of Unicode.
Usage: python3 scripts/unicode_table.py"""
import textwrap

import unicodedata2

CATEGORIES = ('Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Cs Co Cn').split()


def main():
    runs = []
    before = None
    for code_point in range(0x110000):
        category = unicodedata2.category(chr(code_point))
        if category != before:
            runs.append(f'{code_point << 5 | CATEGORIES.index(category):#x},')
        before = category
    print(textwrap.fill(' '.join(runs), 118, initial_indent='    ', subsequent_indent='    '))


if __name__ == '__main__':
    main()
