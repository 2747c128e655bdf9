"""The checks of check_huggingface.sh. Usage: check_huggingface.py NIBBLE EMPTY_DIRECTORY, from the source tree."""
import filecmp
import json
import math
import pathlib
import random
import struct
import subprocess
import sys
import traceback

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

NIBBLE, WORK = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
SOURCE = pathlib.Path('.').resolve()
LENGTH = 64  # tokens of a sequence
LENGTHS = [4, 8, 16, 32, LENGTH]  # of the windows whose losses are compared
LOSS_TOLERANCE = 2e-6  # nats; means of FP32 numbers on both sides, which rounding changes by some 1e-7
PROMPTS = ['Fellow-Citizens of the Senate', 'The people of the United States', 'I have the honor to',
           '\u00e9t\u00e9 1848:\n\t']
TEXTS = [
    'Hello world', ' leading', 'trailing ', '  two  spaces   three ', '\n\n\n a\n  b\n', '\t\ttabs\r\nand lines\r',
    'for (int i = 0; i < n; ++i) { a[i] += b->c("x\\n"); }  // done\n\n    return;', '1 12 123 1234 3.14 \u0661\u0662',
    '\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u3001\u6f22\u5b57\u3002 \u4e2d\u6587 \ud55c\uad6d\uc5b4',
    '\u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440 \u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05d0\u05b8',
    '\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 e\u0301 \ufb01 \u212b', 'NUL \0 \x1b \x7f \ufffd \U0010ffff',
    '<s>struck</s> <unk> <0x41> <|endoftext|> \u2581 \u2581\u2581a', '\u0085 \u00a0 \u2003 \u2028 \u3000x \u200b \ufeff',
    'a' * 200, 'x' + ' ' * 70 + 'y', 'ACGTACGTTTGACCA' * 6]

FP32_RECIPE = '''name: fp32
forward: {x: {format: fp32}, w: {format: fp32}}
grad_input: {dy: {format: fp32}, w: {format: fp32}}
grad_weight: {dy: {format: fp32}, x: {format: fp32}}
'''
# The weights of nvfp4, which leaves the same layers alone, multiplied in FP32.
WEIGHTS_RECIPE = '''name: weights
extends: nvfp4
forward: {x: {format: fp32}, w: {format: nvfp4, block: 16x16, round: nearest}}
grad_input: {dy: {format: fp32}, w: {format: fp32}}
grad_weight: {dy: {format: fp32}, x: {format: fp32}}
high_precision:
  - {match: "embedding|head", format: fp32}
  - {first_blocks: 1, format: fp32}
  - {last_share: 0.15, format: fp32}
'''
RUN = '''run: {dir: RUN, seed: 7}
recipe: RECIPE
model: {pattern: "(*-)x3", hidden_size: 64, query_heads: 4, kv_heads: 2, head_dim: 32, intermediate_size: 128,
        sequence_length: LENGTH, MODEL}
data: {train: DATA/train-*.bin, validation: DATA/validation-*.bin}
train: {steps: STEPS, micro_batch_sequences: 4, tokens_per_step: 1024}
optimizer: {learning_rate: 5e-3}
schedule: {kind: cosine, warmup_steps: 0}
log: {tensorboard: false, progress: none}
'''
IMPORT = '''run: {dir: RUN, seed: 1}
recipe: FP32
model: {from: MODEL, sequence_length: 48, dtype: fp32}
data: {train: "RUN.bin", validation: {first: RUN-0.bin, second: RUN-1.bin}, token_bytes: 2, vocab_size: 64}
train: {steps: 1, micro_batch_sequences: 1, tokens_per_step: 48}
optimizer: {learning_rate: 1e-3}
schedule: {kind: cosine, warmup_steps: 0}
log: {tensorboard: false, progress: none}
'''
LOGIT_TOLERANCE = 1e-4  # of logits up to about 10
failures = 0


def report(what, name, detail):
    global failures
    failures += what != 'ok'
    print(f'{what:7} {name}: {detail}', flush=True)


def check(name, function, *arguments):
    """Calls a function, which returns what it found, and raises an AssertionError if that is wrong."""
    try:
        report('ok', name, function(*arguments))
    except ImportError as error:
        report('SKIPPED', name, error)
    except Exception as error:  # A check that cannot run must not end the others.
        report('FAILED', name, str(error).strip() or type(error).__name__)
        if not isinstance(error, (AssertionError, subprocess.CalledProcessError)):
            traceback.print_exc()


def nibble(*arguments):
    run = subprocess.run([NIBBLE, *map(str, arguments)], cwd=WORK, capture_output=True, text=True)
    assert run.returncode == 0, f'nibble {" ".join(map(str, arguments))}: exit code {run.returncode}: {run.stderr.strip()}'
    return run.stdout


def train(name, recipe, model, steps, *options):
    text = RUN.replace('RUN', name, 1).replace('RECIPE', str(recipe)).replace('LENGTH', str(LENGTH)).replace('MODEL', model)
    text = text.replace('DATA', str(WORK / 'data')).replace('STEPS', str(steps))
    (WORK / (name + '.yaml')).write_text(text)
    return nibble('train', name + '.yaml', *options)


def tokenize(text, directory):
    (WORK / 'one.txt').write_text(text, encoding='utf-8', newline='')
    nibble('tokenize', 'one.txt', '--documents', 'file', '--tokenizer', SOURCE / 'data/sample/tokenizer.model',
           '--validation-share', '0', '--output', directory)


def shard_ids(directory):
    """The ids of the only document of a data set (docs/formats.md), with the end of the document."""
    content = (WORK / directory / 'train-00000.bin').read_bytes()
    width, count = struct.unpack_from('<I', content, 12)[0], struct.unpack_from('<Q', content, 16)[0]
    return list(struct.unpack_from(f'<{count}{"H" if width == 2 else "I"}', content, 4096))


def prepare():
    """Data, recipes, and texts, each a data set of its own. Returns the ids of the texts."""
    sample = subprocess.run(['zstd', '-dc', SOURCE / 'data/sample/state_of_the_union.txt.zst'], capture_output=True,
                            check=True).stdout.decode('utf-8')
    lines = sample.split('\n')
    (WORK / 'text.txt').write_text('\n'.join(lines[::4]), encoding='utf-8')
    nibble('tokenize', 'text.txt', '--documents', 'line', '--tokenizer', SOURCE / 'data/sample/tokenizer.model',
           '--validation-share', '0.1', '--output', 'data')
    (WORK / 'fp32.yaml').write_text(FP32_RECIPE)
    (WORK / 'weights.yaml').write_text(WEIGHTS_RECIPE)
    texts = {}
    for number, line in enumerate(random.Random(1).sample([line for line in lines if len(line) > 1000], 6)):
        name = f'text{number}'
        tokenize(line[:1000], name)
        texts[name] = shard_ids(name)
    return texts


def nibble_losses(run, recipe, texts, length):
    sets = '{' + ', '.join(f'{name}: {WORK / name}/train-*.bin' for name in texts) + '}'
    result = json.loads(nibble('evaluate', run, '--json', '--set', f'data.validation={sets}', '--set', 'eval.sequences=0',
                               '--set', f'model.sequence_length={length}', '--set', f'recipe={recipe}'))
    return {name: entry['loss'] for name, entry in result['sets'].items()}


def transformers_losses(model, texts, length):
    """The mean over the windows of a text; what is too short for a window is left out."""
    losses = {}
    for name, ids in texts.items():
        windows = torch.tensor(ids).unfold(0, length + 1, length)
        with torch.no_grad():
            logits = model(windows[:, :-1]).logits.double()
        losses[name] = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()).item()
    return losses


def compare_losses(run, recipe, model, texts):
    worst = 0.0
    for length in LENGTHS:
        ours, theirs = nibble_losses(run, recipe, texts, length), transformers_losses(model, texts, length)
        worst = max(worst, max(abs(ours[name] - theirs[name]) for name in texts))
    assert worst <= LOSS_TOLERANCE, f'losses differ by {worst:.2e} nats'
    return f'of {len(texts)} texts in windows of {LENGTHS} tokens they differ by at most {worst:.1e} nats'


def compare_tokenizer(export):
    tokenizer = AutoTokenizer.from_pretrained(export)
    files = ['docs/numerics.md', 'data/tokenizers/tokenizer.cpp', 'tests/dist/house.py']
    texts = TEXTS + [(SOURCE / file).read_text(encoding='utf-8') for file in files]
    for number, text in enumerate(texts):
        name = f'{export.name}-{number}'
        tokenize(text, name)
        ids = shard_ids(name)[:-1]
        assert tokenizer(text)['input_ids'] == ids, f'other ids for {text[:60]!r}'
        assert tokenizer.decode(ids, skip_special_tokens=True) == text, f'other text for {text[:60]!r}'
    return f'{type(tokenizer).__name__} gives the ids and the text of {len(texts)} texts'


def compare_greedy_text(run, recipe, export, model):
    tokenizer = AutoTokenizer.from_pretrained(export)
    written = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors='pt')
        tokens = LENGTH - 16 - ids['input_ids'].shape[1]
        theirs = model.generate(**ids, max_new_tokens=tokens, do_sample=False, pad_token_id=tokenizer.eos_token_id)
        theirs = tokenizer.decode(theirs[0], skip_special_tokens=True)
        ours = nibble('generate', run, '--temperature', '0', '--tokens', tokens, '--prompt', prompt, '--set',
                      f'recipe={recipe}')[:-1]
        assert ours == theirs, f'nibble writes {ours!r}, transformers {theirs!r}'
        written.append(ours)
    return f'the same after {len(PROMPTS)} prompts: {written[0]!r}'


def same_directories(left, right):
    names = sorted(path.name for path in left.iterdir())
    assert names == sorted(path.name for path in right.iterdir()), f'{left.name} and {right.name} have other files'
    different = [name for name in names if not filecmp.cmp(left / name, right / name, shallow=False)]
    assert not different, f'{", ".join(different)} differ'
    return f'{len(names)} files are the same bytes'


def import_export(name, model, export, dtype):
    back = f'{name}-back-{dtype}'
    train(back, 'bf16', model, 1, '--set', f'model.from={export}', '--set', f'model.dtype={dtype}')
    nibble('export', back, '--step', '0', '--output', back + '-export', '--dtype', dtype)
    return same_directories(export, WORK / (back + '-export'))


def harness(export):
    """One task of lm-evaluation-harness, whose result is also computed here."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    task = WORK / f'task-{export.name}'
    task.mkdir()
    lines = [line[:150] for line in (WORK / 'text.txt').read_text(encoding='utf-8').split('\n') if len(line) > 400][:12]
    (task / 'lines.jsonl').write_text(''.join(json.dumps({'text': line}) + '\n' for line in lines))
    (task / 'union.yaml').write_text(json.dumps({
        'task': 'union', 'dataset_path': 'json', 'dataset_kwargs': {'data_files': {'test': str(task / 'lines.jsonl')}},
        'test_split': 'test', 'output_type': 'loglikelihood_rolling', 'doc_to_text': '', 'doc_to_target': '{{text}}',
        'metric_list': [{'metric': 'bits_per_byte'}], 'metadata': {'version': 1.0}}))
    model = HFLM(pretrained=str(export), device='cpu', dtype='float32', batch_size=4)
    results = lm_eval.simple_evaluate(model=model, tasks=['union'], task_manager=TaskManager(include_path=str(task)),
                                      bootstrap_iters=0)['results']['union']
    found = results['bits_per_byte,none']
    tokenizer = AutoTokenizer.from_pretrained(export)
    nats = 0.0
    for line in lines:
        ids = [tokenizer.eos_token_id] + tokenizer(line)['input_ids']
        assert len(ids) <= LENGTH, f'a line of {len(ids)} tokens'
        with torch.no_grad():
            logits = model.model(torch.tensor([ids[:-1]])).logits[0].double()
        nats += torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction='sum').item()
    wanted = nats / math.log(2) / sum(len(line.encode()) for line in lines)
    assert abs(found - wanted) < 1e-4, f'{found} bits a byte, where {wanted} are right'
    return f'lm_eval {lm_eval.__version__}: {found:.4f} bits a byte'


def unpack(codes, scales, factor):
    """Codes [rows, columns / 2], E4M3 scales [rows, columns / 16] and the tensor's factor to FP32 [rows, columns]."""
    values = torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6])
    elements = torch.stack((codes & 15, codes >> 4), dim=-1).flatten(1)
    return values[elements.long()] * (scales.float() * factor).repeat_interleave(16, dim=1)


def unpacked_weights(directory):
    """The weights of a compressed-tensors export as its format defines them, by their usual names."""
    tensors, weights = load_file(directory / 'model.safetensors'), {}
    for name, tensor in tensors.items():
        module, _, kind = name.rpartition('.')
        if kind == 'weight_packed':
            weights[module + '.weight'] = unpack(tensor, tensors[module + '.weight_scale'],
                                                 1 / tensors[module + '.weight_global_scale'])
        elif kind not in ('weight_scale', 'weight_global_scale'):
            weights[name] = tensor
    assert len(weights) < len(tensors), 'nothing is packed'
    return weights


def compare_packed(run, export, packed, texts):
    """The packed weights in a model of FP32 give the losses of the recipe that rounds weights alone."""
    weights = unpacked_weights(packed)
    model = AutoModelForCausalLM.from_pretrained(export, dtype=torch.float32)
    model.load_state_dict({name: weight.float() for name, weight in weights.items()}, strict='lm_head.weight' in weights)
    rules = json.loads((packed / 'config.json').read_text())['quantization_config']['ignore']
    return f'{len(rules)} layers are left in BF16; losses: ' + compare_losses(run, WORK / 'weights.yaml', model, texts)


def compare_compressed_tensors(packed):
    import compressed_tensors
    model = AutoModelForCausalLM.from_pretrained(packed)
    model(torch.arange(20)[None])  # weights are unpacked where they are used first
    state, weights = model.state_dict(), unpacked_weights(packed)
    for name, weight in weights.items():
        worst = ((state[name].float() - weight.float()).abs() - weight.float().abs() / 256).max().item()
        assert worst <= 0, f'{name} differs by more than the rounding to BF16'
    return f'compressed-tensors {compressed_tensors.__version__} unpacks {len(weights)} tensors to the same weights'


def compare_modelopt(packed, other):
    left, right = load_file(packed / 'model.safetensors'), load_file(other / 'model.safetensors')
    for name, tensor in left.items():
        module, _, kind = name.rpartition('.')
        if kind == 'weight_packed':
            assert torch.equal(tensor, right[module + '.weight']), f'{module} has other codes'
            assert torch.equal(left[module + '.weight_scale'].view(torch.uint8),
                               right[module + '.weight_scale'].view(torch.uint8)), f'{module} has other scales'
            product = (left[module + '.weight_global_scale'] * right[module + '.weight_scale_2']).item()
            assert abs(product - 1) < 1e-6, f'{module} has other tensor scales: their product is {product}'
    config = json.loads((other / 'hf_quant_config.json').read_text())['quantization']
    return f'{config["quant_algo"]} with the codes and the scales of compressed-tensors'


def check_run(name, recipe, model, dtype, texts):
    train(name, recipe, model, 200)
    exports = {}
    for form, options in (('fp32', ['--dtype', 'fp32']), ('bf16', ['--dtype', 'bf16'])):
        exports[form] = WORK / f'{name}-export-{form}'
        nibble('export', name, '--format', 'huggingface', '--output', exports[form], *options)
    theirs = AutoModelForCausalLM.from_pretrained(exports['fp32'], dtype=torch.float32)
    report('ok', f'{name} export', f'transformers loads a {type(theirs).__name__} of {theirs.num_parameters():,} parameters')
    # nibble multiplies in FP32 where the checkpoint has FP32; of other runs the export is taken in again.
    run, exact = name, WORK / 'fp32.yaml'
    if dtype != 'fp32':
        run = name + '-fp32'
        train(run, exact, model, 1, '--set', f'model.from={exports["fp32"]}', '--set', 'model.dtype=fp32')
        run = next(WORK.glob(f'{run}/checkpoints/step-*0'))
        check(f'{name} losses in BF16', same_loss, name, exports['bf16'], model, texts)
    check(f'{name} losses', compare_losses, run, exact, theirs, texts)
    check(f'{name} tokenizer', compare_tokenizer, exports['fp32'])
    check(f'{name} greedy text', compare_greedy_text, run, exact, exports['fp32'], theirs)
    check(f'{name} harness', harness, exports['fp32'])
    for form in ('fp32', 'bf16'):
        check(f'{name} export, import, export in {form}', import_export, name, model, exports[form], form)
    if recipe != 'nvfp4':
        return
    packed, other = WORK / f'{name}-compressed-tensors', WORK / f'{name}-modelopt'
    nibble('export', name, '--format', 'compressed-tensors', '--output', packed)
    nibble('export', name, '--format', 'modelopt', '--output', other)
    check(f'{name} packed weights', compare_packed, run, exports['fp32'], packed, texts)
    check(f'{name} compressed-tensors', compare_compressed_tensors, packed)
    check(f'{name} modelopt', compare_modelopt, packed, other)


def same_loss(run, export, model, texts):
    """What is taken in again has the loss of the run, to the bit."""
    back = f'{run}-bf16-again'
    train(back, 'bf16', model, 1, '--set', f'model.from={export}')
    checkpoint = next(WORK.glob(f'{back}/checkpoints/step-*0'))
    ours, again = (nibble_losses(which, 'bf16', texts, LENGTH) for which in (run, checkpoint))
    assert ours == again, f'{ours} and {again}'
    return 'of the run and of its export, taken in again, are the same bits'


def compare_import(name):
    """A model that transformers made (tests/trainer/huggingface): its loss in nibble, and its logits when it comes back."""
    source = SOURCE / 'tests/trainer/huggingface' / name
    expected = load_file(source / 'expected.safetensors')
    run = f'import-{name}'
    for number, (tokens, targets) in enumerate(zip(expected['tokens'].tolist(), expected['targets'].tolist())):
        ids = struct.pack('<49H', *tokens, targets[-1])
        (WORK / f'{run}-{number}.bin').write_bytes(ids)
        (WORK / f'{run}.bin').write_bytes(ids * 4)
    text = IMPORT.replace('RUN', run).replace('MODEL', str(source)).replace('FP32', str(WORK / 'fp32.yaml'))
    (WORK / (run + '.yaml')).write_text(text)
    nibble('train', run + '.yaml')
    result = json.loads(nibble('evaluate', f'{run}/checkpoints/step-00000000', '--json'))
    loss = sum(entry['loss'] for entry in result['sets'].values()) / 2
    difference = abs(loss - expected['loss_mean'].item())
    assert difference <= LOSS_TOLERANCE, f'the loss {loss} differs by {difference:.2e} nats'
    nibble('export', run, '--step', '0', '--output', run + '-export', '--dtype', 'fp32')
    model = AutoModelForCausalLM.from_pretrained(WORK / (run + '-export'), dtype=torch.float32)
    with torch.no_grad():
        worst = (model(expected['tokens'].long()).logits - expected['logits']).abs().max().item()
    assert worst <= LOGIT_TOLERANCE, f'the logits of its export differ by {worst:.2e}'
    return (f'the loss differs by {difference:.1e} nats, the logits of the {type(model).__name__} that comes back by '
            f'{worst:.1e}')


def main():
    texts = prepare()
    for name, recipe, model, dtype in (('llama', 'nvfp4', 'tied_head: false', 'bf16'),
                                       ('qwen3', 'nvfp4', 'tied_head: true, qk_norm: true', 'bf16'),
                                       ('plain', WORK / 'fp32.yaml', 'tied_head: true, dtype: fp32', 'fp32')):
        try:
            check_run(name, recipe, model, dtype, texts)
        except Exception as error:
            report('FAILED', name, error)
            if not isinstance(error, AssertionError):
                traceback.print_exc()
    for name in ('llama', 'llama3', 'qwen2', 'qwen3', 'mistral'):
        check(f'import of {name}', compare_import, name)
    return 1 if failures else 0


sys.exit(main())
