#!/usr/bin/env python3
"""Compares a packed export with `nibble quantize` on the weights of the plain export: codes, block scales, and the
tensor scale. Usage: packed.py compressed-tensors|modelopt PLAIN_EXPORT CONFIG NIBBLE   (in the directory of the exports)"""
import json
import pathlib
import struct
import subprocess
import sys

import numpy

NAMES = {'compressed-tensors': ('weight_packed', 'weight_scale', 'weight_global_scale', [1]),
         'modelopt': ('weight', 'weight_scale', 'weight_scale_2', [])}
FUSED = {'q_proj': ('attention.qkv', ['q_proj', 'k_proj', 'v_proj']), 'gate_proj': ('mlp.gate_up', ['gate_proj', 'up_proj']),
         'o_proj': ('attention.output', ['o_proj']), 'down_proj': ('mlp.down', ['down_proj'])}


def read(path):
    data = pathlib.Path(path).read_bytes()
    length, = struct.unpack('<Q', data[:8])
    header = json.loads(data[8:8 + length])
    header.pop('__metadata__', None)
    return {name: (entry['dtype'], entry['shape'], data[8 + length + entry['data_offsets'][0]:8 + length + entry['data_offsets'][1]])
            for name, entry in header.items()}


def main():
    form, plain_directory, config, nibble = sys.argv[1:]
    codes_name, scales_name, tensor_name, tensor_shape = NAMES[form]
    packed = read(f'{form}/model.safetensors')
    plain = read(f'{plain_directory}/model.safetensors')
    quantization = json.load(open(f'{form}/config.json'))['quantization_config']
    excluded = quantization['ignore']
    if form == 'modelopt':
        separate = json.load(open('modelopt/hf_quant_config.json'))['quantization']
        assert separate['exclude_modules'] == excluded and separate['quant_algo'] == 'W4A16_NVFP4', separate
    assert excluded.count('lm_head') == 1, excluded
    compared = 0
    for name in plain:
        module = name.removesuffix('.weight')
        last = module.rsplit('.', 1)[-1]
        if last not in FUSED or module in excluded:
            if last in FUSED or module in excluded:
                assert packed[name] == plain[name], name
            continue
        layer = int(module.split('.')[2])
        ours, parts = FUSED[last]
        block = 2 * layer + (0 if ours.startswith('attention') else 1)
        prefix = module.rsplit('.', 1)[0]
        rows = [numpy.frombuffer(plain[f'{prefix}.{part}.weight'][2], '<u2').reshape(plain[f'{prefix}.{part}.weight'][1])
                for part in parts]
        whole = (numpy.concatenate(rows).astype('<u4') << 16).view('<f4')
        numpy.save('fused.npy', whole)
        subprocess.run([nibble, 'quantize', '--recipe', 'nvfp4', '--operand', 'forward.w', '--input', 'fused.npy', '--output',
                        'fused.safetensors', '--overwrite'], check=True, stdout=subprocess.DEVNULL)
        own = read('fused.safetensors')
        codes, scales, tensor = b'', b'', set()
        for part in parts:
            dtype, shape, data = packed[f'{prefix}.{part}.{codes_name}']
            assert dtype == 'U8' and shape[1] * 2 == whole.shape[1], (name, dtype, shape)
            codes += data
            dtype, shape, data = packed[f'{prefix}.{part}.{scales_name}']
            assert dtype == 'F8_E4M3' and shape[1] * 16 == whole.shape[1], (name, dtype, shape)
            scales += data
            dtype, shape, data = packed[f'{prefix}.{part}.{tensor_name}']
            assert dtype == 'F32' and shape == tensor_shape, (name, dtype, shape)
            tensor.add(data)
        assert codes == own['codes'][2] and scales == own['block_scales'][2], f'{name}: other bytes than nibble quantize'
        largest = numpy.float32(numpy.abs(whole).max())
        expected = numpy.float32(2688) / largest if form == 'compressed-tensors' else largest / numpy.float32(2688)
        assert tensor == {expected.tobytes()}, f'{name}: the parts do not share 2688/amax, or its reciprocal'
        compared += 1
    assert compared >= 2, f'only {compared} tensors were packed'
    print(f'{form}: {compared} packed tensors are those of nibble quantize')


if __name__ == '__main__':
    main()
