"""Train the toy Llama in `examples/demo_model` from text that this script makes up: little stories and two-digit sums.

One seed on one thread gives the same bytes on the same machine. The model is a demonstration, not a language model.
"""

import random
import time
import zlib
from pathlib import Path

import click
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast as FastTokenizer

VOCAB_SIZE = 512
MAX_TOKENS = 512
BOS, EOS = "<s>", "</s>"
BOS_ID, EOS_ID = 0, 1
SHAPE = dict(vocab_size=VOCAB_SIZE, hidden_size=128, intermediate_size=352, num_hidden_layers=4)
SHAPE |= dict(num_attention_heads=4, num_key_value_heads=2, head_dim=32, tie_word_embeddings=True)
SHAPE |= dict(max_position_embeddings=MAX_TOKENS, rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
SUMS_PER_STEP = 128
STORIES_PER_STEP = 4
LIST_SIZES = (1, 1, 1, 1, 1, 4, 16, 36)  # sums in one document; 36 sums fit MAX_TOKENS
PEAK_LR = 3e-3
WARMUP_STEPS = 100

PRONOUNS = dict.fromkeys(("Mia", "Anna", "Lily", "Ruby", "Nora", "Emma"), "She")
PRONOUNS |= dict.fromkeys(("Tom", "Ben", "Max", "Sam", "Leo", "Finn"), "He")
NAMES = tuple(PRONOUNS)
ANIMALS = ("cat", "dog", "fox", "bear", "mouse", "rabbit", "duck", "horse", "bird", "frog")
PLACES = ("in the forest", "by the sea", "on a farm", "near the river", "on a hill", "in the town")
OBJECTS = ("ball", "book", "key", "shell", "hat", "bell", "kite", "boat", "drum", "lamp")
COLORS = ("red", "blue", "green", "yellow", "white", "golden")
SPOTS = ("under a tree", "in the grass", "behind a stone", "beside the road", "next to the bridge")
WEATHER = ("sunny", "rainy", "windy", "snowy", "cold", "warm")
TRAITS = ("small", "brave", "kind", "clever", "shy", "old")
FEELINGS = ("happy", "glad", "proud", "curious")


def is_held_out(*parts: object) -> bool:
    """Tell whether a sum or story belongs to the tenth that training never sees."""
    return zlib.crc32("|".join(map(str, parts)).encode()) % 10 == 0


def write_sum(first: int, second: int, sign: str) -> str:
    """Return a line such as `17 + 25 = 42.`; `sign` is `+` or `-`."""
    return f"{first} {sign} {second} = {first + second if sign == '+' else first - second}."


def draw_sum(rng: random.Random) -> str:
    """Draw a training sum: operands 0 to 99, differences not negative, held-out pairs (in either order) left out."""
    low, high = sorted((rng.randrange(100), rng.randrange(100)))
    while is_held_out(low, high):
        low, high = sorted((rng.randrange(100), rng.randrange(100)))
    return write_sum(high, low, "-") if rng.random() < 0.4 else write_sum(*rng.sample((low, high), 2), "+")


def list_sums(sign: str, held_out: bool) -> list[str]:
    """List all sums of two two-digit operands, differences not negative, on one side of the split."""
    pairs = [(a, b) for a in range(10, 100) for b in range(10, 100) if sign == "+" or a >= b]
    return [write_sum(a, b, sign) for a, b in pairs if is_held_out(min(a, b), max(a, b)) == held_out]


def draw_story(rng: random.Random, held_out: bool = False) -> str:
    """Draw a story; the triple (name, animal, object) decides on which side of the split it lies."""
    name, animal, thing = rng.choice(NAMES), rng.choice(ANIMALS), rng.choice(OBJECTS)
    while is_held_out(name, animal, thing) != held_out:
        name, animal, thing = rng.choice(NAMES), rng.choice(ANIMALS), rng.choice(OBJECTS)
    friend = rng.choice([n for n in NAMES if n != name])
    other, he = rng.choice([a for a in ANIMALS if a != animal]), PRONOUNS[name]
    place, color, trait, feeling = map(rng.choice, (PLACES, COLORS, TRAITS, FEELINGS))
    spot, lost_spot = rng.sample(SPOTS, 2)
    opening = (f"Once upon a time there was a {trait}", f"{name} was a {trait}", f"There once was a {trait}")
    naming = (f"{animal} named {name}.", f"{animal}.", f"{animal} called {name}.")
    ending = (
        f"{name} the {animal} and {friend} the {other} were friends from that day on.",
        f"In the evening {name} took the {color} {thing} home and slept well {place}.",
    )
    middle = (
        f"They played with the {thing} all day.",
        f"Then {friend} lost the {thing} and {name} was sad. "
        f"They looked and looked, and {name} saw the {thing} {lost_spot}.",
    )
    return (
        f"{' '.join(rng.choice(tuple(zip(opening, naming, strict=True))))} {he} lived {place}. "
        f"One {rng.choice(WEATHER)} day {name} found a {color} {thing} {spot}. "
        f"{rng.choice((f'{he} was very {feeling}.', f'The {thing} made {name} {feeling}.'))} "
        f'{name} showed the {thing} to {friend} the {other}. "What a nice {color} {thing}!" said {friend}. '
        f"{rng.choice(middle)} {rng.choice(ending)} The end."
    )


def train_tokenizer(rng: random.Random) -> FastTokenizer:
    """Train a byte-level BPE that keeps every digit a token of its own and puts `<s>` in front."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())  # all 256 bytes: any text round-trips
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=[BOS, EOS], initial_alphabet=alphabet, show_progress=False
    )
    texts = [draw_story(rng) for _ in range(4000)] + [draw_sum(rng) for _ in range(4000)]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, BOS_ID)]
    )
    return FastTokenizer(tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, model_max_length=MAX_TOKENS)


def make_batch(tokenizer: FastTokenizer, documents: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode documents as `(ids, labels)`, int64 [documents, tokens], padded at the right with no loss on padding."""
    rows = [torch.tensor([*ids, EOS_ID]) for ids in tokenizer(documents)["input_ids"]]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=EOS_ID)
    return ids, torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)


def train(model: LlamaForCausalLM, tokenizer: FastTokenizer, rng: random.Random, num_steps: int) -> None:
    """Train in place; a step sees SUMS_PER_STEP sums and STORIES_PER_STEP stories."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LR, betas=(0.9, 0.98), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP_STEPS, (num_steps - step) / max(1, num_steps - WARMUP_STEPS))
    )
    equals_id = tokenizer.convert_tokens_to_ids("\u0120=")
    start_s, num_tokens = time.monotonic(), 0
    for step in range(num_steps):
        size = rng.choice(LIST_SIZES)
        lists = ["\n".join(draw_sum(rng) for _ in range(size)) for _ in range(SUMS_PER_STEP // size)]
        sum_ids, sum_labels = make_batch(tokenizer, lists)
        # The operands of a document's first sum are noise: no loss before its equals sign.
        sum_labels[(sum_ids == equals_id).cumsum(1) == 0] = -100
        story_ids, story_labels = make_batch(tokenizer, [draw_story(rng) for _ in range(STORIES_PER_STEP)])
        sum_loss = model(input_ids=sum_ids, labels=sum_labels).loss
        story_loss = model(input_ids=story_ids, labels=story_labels).loss
        optimizer.zero_grad()
        (sum_loss + 0.5 * story_loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        num_tokens += int((sum_ids != EOS_ID).sum() + (story_ids != EOS_ID).sum())
        if step % 50 == 49 or step == num_steps - 1:
            losses = f"sum loss {sum_loss.item():.4f} ({size} a row), story loss {story_loss.item():.4f}"
            click.echo(f"step {step + 1}: {losses}, {num_tokens} tokens, {time.monotonic() - start_s:.0f} s")


@torch.inference_mode()
def sum_accuracy(model: LlamaForCausalLM, tokenizer: FastTokenizer, sums: list[str]) -> float:
    """Return the share of sums whose greedy continuation is the exact answer, full stop and `</s>`."""
    prompts = [line[: line.index("=") + 1] for line in sums]
    ids = torch.tensor(tokenizer(prompts)["input_ids"])
    output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
    texts = tokenizer.batch_decode(output)
    return sum(t.startswith(BOS + line + EOS) for t, line in zip(texts, sums, strict=True)) / len(sums)


@torch.inference_mode()
def report(out: Path) -> None:
    """Load the saved files, float16 weights into float32, and print the metrics of the split and a few texts."""
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(out)
    for sign, held_out in (("+", True), ("+", False), ("-", True), ("-", False)):
        side, sums = "held-out" if held_out else "training", list_sums(sign, held_out)
        click.echo(f"{side} '{sign}' accuracy: {sum_accuracy(model, tokenizer, sums):.4f} of {len(sums)}")
    rng = random.Random(1)
    ids, labels = make_batch(tokenizer, [draw_story(rng, held_out=True) for _ in range(200)])
    loss = model(input_ids=ids, labels=labels).loss
    click.echo(f"held-out story loss: {loss.item():.4f} nats a token, perplexity {loss.exp().item():.4f}")
    for prompt in ("17 + 25 =", "83 - 47 =", "Once upon a time", "Ruby was a clever fox."):
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=200, do_sample=False)
        click.echo(f"{prompt!r} -> {tokenizer.decode(output[0, ids.shape[1] :])!r}")


@click.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path(__file__).parent / "demo_model")
@click.option("--steps", type=click.IntRange(min=1), default=4500, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--layers", type=click.IntRange(min=1), default=SHAPE["num_hidden_layers"], show_default=True)
@click.option("--hidden-size", type=click.IntRange(min=32), default=SHAPE["hidden_size"], show_default=True)
def main(out: Path, steps: int, seed: int, layers: int, hidden_size: int) -> None:
    """Train the toy model, save it in float16 under OUT, and report on the saved files.

    Fewer layers and a smaller hidden size, a multiple of 64, make a draft for it (`amdnfs serve --draft`).
    """
    if hidden_size % 64:
        raise click.UsageError(f"--hidden-size must be a multiple of 64, not {hidden_size}")
    heads, inner = hidden_size // 32, hidden_size * SHAPE["intermediate_size"] // SHAPE["hidden_size"]
    sizes = dict(hidden_size=hidden_size, intermediate_size=inner, num_hidden_layers=layers)
    sizes |= dict(num_attention_heads=heads, num_key_value_heads=heads // 2)
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(random.Random(0))  # the same for every seed
    ids = {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID}
    model = LlamaForCausalLM(LlamaConfig(**(SHAPE | sizes), **ids))
    model.generation_config = GenerationConfig(**ids, pad_token_id=EOS_ID)
    click.echo(f"{model.num_parameters()} parameters, {len(tokenizer)} tokens in the vocabulary")
    train(model, tokenizer, random.Random(seed), steps)
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    report(out)


if __name__ == "__main__":
    main()
