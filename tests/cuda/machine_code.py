"""What ptxas made of nibble's kernels, read from the cubins inside object files or libraries, without NVIDIA's tools.

Usage: machine_code.py check FILE...    fails for kernels that use local memory (spills, arrays indexed at run time) or
                                        double precision where it is not meant, or that lack the conversions they mean
       machine_code.py list FILE...     registers, local bytes and opcode counts of every kernel

A cubin is an ELF file. Its .text.KERNEL sections hold 128-bit instructions, whose lowest 12 bits are the opcode; .nv.info
lists, for each kernel, attributes such as registers and the size of its frame of local memory.
"""
import collections
import struct
import sys

EM_CUDA = 190
OPCODES = {0x229: "DADD", 0x228: "DMUL", 0x22B: "DFMA", 0x23E: "F2FP"}
DOUBLE = ("DADD", "DMUL", "DFMA")
FRAME_SIZE, REGISTERS = 0x11, 0x2F  # attributes of .nv.info
# Sources whose kernels compute in double precision because their contract says so: part of a kernel's name.
MEANS_DOUBLE = ("gradient_norm_cu", "columns_cu", "dequantize_cu", "alpha_cu", "exact_gemm_cu")

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


def faults_of(kernel):
    if kernel.frame > 0:
        yield "uses %d bytes of local memory" % kernel.frame
    double = sum(kernel.opcodes[opcode] for opcode in DOUBLE)
    if double and not any(part in kernel.name for part in MEANS_DOUBLE):
        yield "has %d instructions in double precision" % double


def main():
    if len(sys.argv) < 3 or sys.argv[1] not in ("check", "list"):
        sys.exit(__doc__)
    kernels = [kernel for path in sys.argv[2:] for cubin in cubins_of(path) for kernel in kernels_of(cubin)]
    if sys.argv[1] == "list":
        for kernel in sorted(kernels):
            print("sm_%d %-4d registers %4d local bytes %s %s" % (kernel.architecture, kernel.registers, kernel.frame,
                                                                  dict(kernel.opcodes), kernel.name))
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
    for architecture in (90, 100, 103, 120):
        if architectures[architecture] == 0 or architectures[architecture] != architectures[90]:
            faults.append("sm_%d has %d kernels, sm_90 has %d" % (architecture, architectures[architecture], architectures[90]))
    print("%d kernels for each of %s, packed conversions in quantisers %s" %
          (architectures[90], sorted(architectures), sorted(conversions.items())))
    for fault in faults:
        print(fault)
    sys.exit(1 if faults else 0)


main()
