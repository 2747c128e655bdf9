#!/usr/bin/env python3
"""Writes the models of this folder: tiny, with random weights, as transformers' save_pretrained writes them, and what
transformers computes with them. Usage: make.py [NAME ...]   (all of them by default)

Run once; the files are committed. Needs the packages torch and transformers. The two generations of transformers write
configurations differently: llama3 and mistral are from 4.57.1, as most published models are, the others from 5.24.0.

Beside config.json, generation_config.json and the weights each folder has expected.safetensors: `tokens` and `targets`,
int32 [sequences, length]; `logits`, float32 [sequences, length, vocabulary]; `loss_sum` and `loss_mean`, float32 [], the
cross-entropy of all targets in nats; and for each tensor of the model `gradient.NAME`, float32: the derivative of
`loss_sum`. Transformers computes them in FP64, with the norms, the rotary angles and the weights of attention in FP32.
"""
import pathlib
import shutil
import sys

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

SEQUENCES, LENGTH, VOCABULARY = 2, 48, 64
SHAPE = dict(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=128, bos_token_id=1, eos_token_id=2)


def rope(theta, **scaling):
    if int(transformers.__version__.split('.')[0]) < 5:
        return dict(rope_theta=theta, rope_scaling=scaling or None)
    return dict(rope_parameters=dict(rope_type='default', rope_theta=theta) | scaling)


# With rope_theta 50 and heads of 8 the four wavelengths are 6, 17, 44 and 118 positions: of the three cases of Llama 3's
# rule for an original length of 32, the first is left alone, the second lies between, and the others are stretched.
LLAMA3_ROPE = rope(50.0, rope_type='llama3', factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                   original_max_position_embeddings=32)
MODELS = {  # name: (configuration, weights, largest shard)
    'llama': (LlamaConfig(**SHAPE, **rope(10000.0), intermediate_size=48, head_dim=16, rms_norm_eps=1e-3,
                          tie_word_embeddings=False), torch.float32, '40KB'),
    'llama3': (LlamaConfig(**SHAPE, **LLAMA3_ROPE, intermediate_size=64, rms_norm_eps=1e-5, tie_word_embeddings=True),
               torch.float32, '1GB'),
    'qwen3': (Qwen3Config(**SHAPE, **rope(1000000.0), intermediate_size=48, head_dim=16, rms_norm_eps=1e-3,
                          tie_word_embeddings=False), torch.float32, '1GB'),
    'qwen2': (Qwen2Config(**SHAPE, **rope(1000000.0), intermediate_size=64, rms_norm_eps=1e-6, tie_word_embeddings=True),
              torch.float32, '1GB'),
    'mistral': (MistralConfig(**SHAPE, **rope(10000.0), intermediate_size=64, head_dim=8, rms_norm_eps=1e-5,
                              sliding_window=None, tie_word_embeddings=False), torch.bfloat16, '1GB'),
}


def randomise(model, generator):
    """Weights large enough that no gradient vanishes and no two tokens are equally likely."""
    for name, weight in sorted(model.named_parameters()):
        noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        if name.endswith('norm.weight') or 'layernorm' in name:
            value = 1.0 + 0.3 * noise
        elif name.endswith('.bias'):
            value = 0.5 * noise
        elif name == 'model.embed_tokens.weight':
            value = 0.5 * noise
        else:
            value = 1.5 * noise / weight.shape[-1] ** 0.5
        weight.data = value.to(weight.dtype)


def expected(path, generator):
    """What the saved model gives, loaded again and computed in FP64."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64, attn_implementation='eager')
    drawn = torch.randint(0, VOCABULARY, (SEQUENCES, LENGTH + 1), generator=generator)
    tokens, targets = drawn[:, :-1], drawn[:, 1:]
    logits = model(tokens, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction='sum')
    loss.backward()
    result = {'tokens': tokens.int(), 'targets': targets.int(), 'logits': logits.detach().float(),
              'loss_sum': loss.detach().float(), 'loss_mean': (loss.detach() / targets.numel()).float()}
    for name, weight in model.named_parameters():
        result['gradient.' + name] = weight.grad.float()
    print(f'{path.name}: {sum(w.numel() for w in model.parameters())} parameters, mean loss {result["loss_mean"]:.6f}, '
          f'logits from {logits.min():.2f} to {logits.max():.2f}')
    return {name: tensor.contiguous() for name, tensor in result.items()}


def main():
    here = pathlib.Path(__file__).resolve().parent
    for index, (name, (config, dtype, largest_shard)) in enumerate(MODELS.items()):
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        generator = torch.Generator().manual_seed(1000 + index)
        model = AutoModelForCausalLM.from_config(config).to(dtype)
        randomise(model, generator)
        shutil.rmtree(here / name, ignore_errors=True)
        model.save_pretrained(here / name, max_shard_size=largest_shard)
        save_file(expected(here / name, generator), here / name / 'expected.safetensors')


if __name__ == '__main__':
    main()
