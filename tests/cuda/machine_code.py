"""What ptxas made of nibble's kernels, read from the cubins inside object files or libraries, without NVIDIA's tools.

Usage: machine_code.py check FILE...    fails for kernels that use local memory (spills, arrays indexed at run time) or
                                        double precision where it is not meant, that lack the conversions they mean, or
                                        that have grown: by more than 5 % over the instructions and registers in
                                        machine_code.txt
       machine_code.py update FILE...   writes machine_code.txt, where a kernel is new or may grow
       machine_code.py list FILE...     registers, local bytes and opcode counts of every kernel

A cubin is an ELF file. Its .text.KERNEL sections hold 128-bit instructions, whose lowest 12 bits are the opcode; .nv.info
lists, for each kernel, attributes such as registers and the size of its frame of local memory.
"""
import collections
import ctypes
import os
import re
import struct
import sys

EM_CUDA = 190
OPCODES = {0x229: "DADD", 0x228: "DMUL", 0x22B: "DFMA", 0x23E: "F2FP", 0x918: "NOP"}
DOUBLE = ("DADD", "DMUL", "DFMA")
FRAME_SIZE, REGISTERS = 0x11, 0x2F  # attributes of .nv.info
# Sources whose kernels compute in double precision because their contract says so: part of a kernel's name.
MEANS_DOUBLE = ("gradient_norm_cu", "columns_cu", "dequantize_cu", "alpha_cu", "exact_gemm_cu")

TARGETS = (90, 100, 103, 120)
TABLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "machine_code.txt")
HEADER = """# Instructions/registers of each kernel on sm_%s, compiled by nvcc %s. machine_code.py check
# fails for a kernel that has 5 %% more (other versions of nvcc are not held to this); machine_code.py update writes the table.
"""
# nvcc's names of a file's unnamed namespace hold hashes; the standard one does not.
UNNAMED = re.compile(r"\d+_GLOBAL__N__[0-9a-f]+_\d+_(\w+?)_cu_[0-9a-f]{8}")

Kernel = collections.namedtuple("Kernel", "architecture name registers frame opcodes")


def sections(cubin):
    offset, = struct.unpack_from("<Q", cubin, 0x28)
    count, names = struct.unpack_from("<HH", cubin, 0x3C)
    headers = [struct.unpack_from("<IIQQQQIIQQ", cubin, offset + 64 * i) for i in range(count)]
    strings = headers[names][4]
    for header in headers:
        begin = strings + header[0]
        yield cubin[begin:cubin.index(b"\0", begin)].decode(), header


def symbol_names(cubin, table, strings):
    result = []
    for at in range(table[4], table[4] + table[5], 24):
        name, = struct.unpack_from("<I", cubin, at)
        begin = strings[4] + name
        result.append(cubin[begin:cubin.index(b"\0", begin)].decode())
    return result


def attributes(cubin, section, symbols):
    """{kernel: {attribute: value}} of .nv.info"""
    result = collections.defaultdict(dict)
    at, end = section[4], section[4] + section[5]
    while at + 4 <= end:
        form, attribute, size = struct.unpack_from("<BBH", cubin, at)
        at += 4
        if form != 4:  # the value is in the 16 bits of `size`
            continue
        if size == 8:
            symbol, value = struct.unpack_from("<II", cubin, at)
            if symbol < len(symbols):
                result[symbols[symbol]][attribute] = value
        at += size
    return result


def kernels_of(cubin):
    flags, = struct.unpack_from("<I", cubin, 0x30)
    found = dict(sections(cubin))
    symbols = symbol_names(cubin, found[".symtab"], found[".strtab"])
    info = attributes(cubin, found[".nv.info"], symbols) if ".nv.info" in found else {}
    for name, header in found.items():
        if not name.startswith(".text."):
            continue
        opcodes = collections.Counter()
        for at in range(header[4], header[4] + header[5], 16):
            opcode = struct.unpack_from("<Q", cubin, at)[0] & 0xFFF
            opcodes[OPCODES.get(opcode, "other")] += 1
        own = info.get(name[6:], {})
        yield Kernel(flags >> 8 & 0xFF, name[6:], own.get(REGISTERS, 0), own.get(FRAME_SIZE, 0), opcodes)


def cubins_of(path):
    data = open(path, "rb").read()
    at = data.find(b"\x7fELF\x02\x01")
    while at >= 0:
        if struct.unpack_from("<H", data, at + 18)[0] == EM_CUDA:
            yield data[at:]
        at = data.find(b"\x7fELF\x02\x01", at + 6)


def nvcc_of(path):
    found = re.search(rb"Cuda compilation tools, release [0-9.]+, V([0-9.]+)", open(path, "rb").read())
    return found.group(1).decode() if found else ""


def demangled(name):
    library = ctypes.CDLL("libstdc++.so.6")
    library.__cxa_demangle.restype = ctypes.c_void_p
    text = library.__cxa_demangle(name.encode(), None, None, None)
    return ctypes.string_at(text).decode() if text else name


def readable(name):
    """The kernel's source, where it has an unnamed namespace, its name and its template arguments."""
    source = UNNAMED.search(name)
    text = demangled(UNNAMED.sub("12_GLOBAL__N_1", name))
    text = text.replace("(anonymous namespace)::", "").replace("nibble::", "").replace("cuda::", "")
    text = re.sub(r"\((\w+)\)(?=\d)", r"\1 ", text.removeprefix("void "))  # enumerators: (Kind)3
    return (source.group(1) + " " if source else "") + text.split("(")[0]


def sizes(kernels):
    """{kernel: {target: (instructions, registers)}}"""
    result = collections.defaultdict(dict)
    for kernel in kernels:
        instructions = sum(kernel.opcodes.values()) - kernel.opcodes["NOP"]
        result[readable(kernel.name)][kernel.architecture] = (instructions, kernel.registers)
    return result


def read_table():
    """The version of nvcc, and what sizes() gave."""
    lines = open(TABLE).read().splitlines()
    version = re.search(r"nvcc ([0-9.]*[0-9])", lines[0]).group(1)
    table = {}
    for line in lines[2:]:
        *pairs, name = line.split(None, len(TARGETS))
        table[name] = dict(zip(TARGETS, (tuple(map(int, pair.split("/"))) for pair in pairs)))
    return version, table


def write_table(kernels, version):
    with open(TABLE, "w") as file:
        file.write(HEADER % (", ".join(map(str, TARGETS)), version))
        for name, found in sorted(sizes(kernels).items()):
            file.write(" ".join("%5d/%-3d" % found[target] for target in TARGETS) + "  " + name + "\n")


def growth(kernels, version):
    """Faults of kernels that are larger than the table allows."""
    expected_version, table = read_table()
    if version != expected_version:
        print("sizes are not checked: nvcc %s made them, and the table is of %s" % (version, expected_version))
        return
    found = sizes(kernels)
    for name in sorted(set(found) ^ set(table)):
        yield "%s is %s machine_code.txt: run machine_code.py update" % (name, "not in" if name in found else "only in")
    for name in sorted(set(found) & set(table)):
        for target, size in found[name].items():
            for what, now, before in zip(("instructions", "registers"), size, table[name][target]):
                if now > before + max(before // 20, 4):
                    yield "sm_%d %s has %d %s instead of %d" % (target, name, now, what, before)


def faults_of(kernel):
    if kernel.frame > 0:
        yield "uses %d bytes of local memory" % kernel.frame
    double = sum(kernel.opcodes[opcode] for opcode in DOUBLE)
    if double and not any(part in kernel.name for part in MEANS_DOUBLE):
        yield "has %d instructions in double precision" % double


def main():
    if len(sys.argv) < 3 or sys.argv[1] not in ("check", "update", "list"):
        sys.exit(__doc__)
    kernels = [kernel for path in sys.argv[2:] for cubin in cubins_of(path) for kernel in kernels_of(cubin)]
    if sys.argv[1] == "list":
        for kernel in sorted(kernels):
            print("sm_%d %-4d registers %4d local bytes %s %s" % (kernel.architecture, kernel.registers, kernel.frame,
                                                                  dict(kernel.opcodes), kernel.name))
        return
    version = nvcc_of(sys.argv[2])
    if sys.argv[1] == "update":
        write_table(kernels, version)
        return
    architectures = collections.Counter(kernel.architecture for kernel in kernels)
    faults = ["sm_%d %s %s" % (kernel.architecture, kernel.name, fault) for kernel in kernels
              for fault in faults_of(kernel)]
    # E2M1 is encoded by the hardware where it can: by instructions of this opcode that sm_90 does not have.
    conversions = collections.Counter()
    for kernel in kernels:
        if "cast_kernel" in kernel.name:
            conversions[kernel.architecture] += kernel.opcodes["F2FP"]
    for architecture in (100, 103, 120):
        if conversions[architecture] <= conversions[90]:
            faults.append("sm_%d has %d packed conversions in its quantisers, sm_90 has %d" %
                          (architecture, conversions[architecture], conversions[90]))
    for architecture in TARGETS:
        if architectures[architecture] == 0 or architectures[architecture] != architectures[90]:
            faults.append("sm_%d has %d kernels, sm_90 has %d" % (architecture, architectures[architecture], architectures[90]))
    faults += growth(kernels, version)
    print("%d kernels for each of %s, packed conversions in quantisers %s" %
          (architectures[90], sorted(architectures), sorted(conversions.items())))
    for fault in faults:
        print(fault)
    sys.exit(1 if faults else 0)


main()
