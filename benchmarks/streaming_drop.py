"""How long `depthprune drop` takes on a large checkpoint, against `cp` of the bytes that stay, and against mergekit.

A sharded checkpoint of random bytes in the layout of a Llama is written, half of its layers are dropped, and the
result is copied with `cp`, in turns, so that the disk and the page cache treat all alike. Peak memory is that of each
process, read from /proc while it runs.

    python benchmarks/streaming_drop.py --gigabytes 8 --rounds 3 --folder /big/disk
    python benchmarks/streaming_drop.py --gigabytes 2 --rounds 3 --folder /big/disk --mergekit VENV/bin/mergekit-yaml

mergekit goes into an environment of its own: `python -m venv VENV; VENV/bin/pip install torch mergekit`.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HIDDEN, VOCABULARY, SHARD_BYTES = 2048, 32000, 2_000_000_000


@dataclass
class Measured:
    """Seconds of a command, and the peak memory of each of its processes in MB, largest first."""

    seconds: float
    peaks_mb: list[int]


def tensors(layers: int) -> list[tuple[str, tuple[int, ...]]]:
    """Return names and shapes of a Llama's tensors."""
    square, wide = (HIDDEN, HIDDEN), (4 * HIDDEN, HIDDEN)
    found = [("model.embed_tokens.weight", (VOCABULARY, HIDDEN))]
    for i in range(layers):
        place = f"model.layers.{i}"
        found += [(f"{place}.self_attn.{x}_proj.weight", square) for x in "qkvo"]
        found += [(f"{place}.mlp.{x}_proj.weight", wide) for x in ("gate", "up")]
        found += [(f"{place}.mlp.down_proj.weight", wide[::-1])]
        found += [(f"{place}.{x}_layernorm.weight", (HIDDEN,)) for x in ("input", "post_attention")]
    return [*found, ("model.norm.weight", (HIDDEN,)), ("lm_head.weight", (VOCABULARY, HIDDEN))]


def make_checkpoint(folder: Path, num_bytes: float, shards: int | None = None) -> int:
    """Write a checkpoint of random bytes of about `num_bytes`; returns its number of layers."""
    folder.mkdir()
    layer_bytes = 2 * (4 + 12) * HIDDEN * HIDDEN
    layers = max(4, round((num_bytes - 4 * VOCABULARY * HIDDEN) / layer_bytes))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": 4 * HIDDEN,
        "num_hidden_layers": layers,
        "num_attention_heads": HIDDEN // 128,
        "num_key_value_heads": HIDDEN // 128,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "rms_norm_eps": 1e-5,
    }
    (folder / "config.json").write_text(json.dumps(config))
    everything = tensors(layers)
    total = sum(2 * math.prod(shape) for _, shape in everything)
    limit = total / shards if shards else SHARD_BYTES
    groups, filled = [[]], 0
    for name, shape in everything:
        if groups[-1] and filled + 2 * math.prod(shape) > limit:
            groups.append([])
            filled = 0
        groups[-1].append((name, shape))
        filled += 2 * math.prod(shape)
    weight_map, block = {}, os.urandom(1 << 24)
    for number, group in enumerate(groups):
        file = f"model-{number + 1:05}-of-{len(groups):05}.safetensors"
        header, at = {"__metadata__": {"format": "pt"}}, 0
        for name, shape in group:
            size = 2 * math.prod(shape)
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
            at += size
            weight_map[name] = file
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (folder / file).open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            for start in range(0, at, len(block)):
                stream.write(block[: min(len(block), at - start)])
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return layers


def measure(command: list[str]) -> Measured:
    """Run a command and watch the memory of its processes."""
    peaks: dict[int, int] = {}
    start = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        while process.poll() is None:
            for pid in family(process.pid):
                try:
                    status = Path(f"/proc/{pid}/status").read_text()
                except OSError:
                    continue
                for line in status.splitlines():
                    if line.startswith("VmHWM:"):
                        peaks[pid] = int(line.split()[1]) // 1000
            time.sleep(0.02)
        seconds = time.perf_counter() - start
        if process.returncode:
            said.seek(0)
            sys.exit(f"{' '.join(command)} failed: {said.read().decode(errors='replace')[-2000:]}")
    return Measured(seconds, sorted(peaks.values(), reverse=True))


def family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    found = [pid]
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [child for line in file.read_text().split() for child in family(int(line))]
        except OSError:
            continue
    return found


def commands(arguments, folder: Path, source: Path, layers: int) -> dict[str, list[str]]:
    """Return the commands to compare; each writes to a folder of its own name."""
    drop = str(Path(sys.executable).with_name("depthprune"))
    half = str(layers // 2)
    found = {
        "depthprune": [
            drop,
            "drop",
            str(source),
            "--strategy",
            "top",
            "--count",
            half,
            "--output",
            str(folder / "out"),
        ],
        "cp": ["cp", "-r", str(folder / "kept"), str(folder / "copy")],
        "cp and sync": ["sh", "-c", f"cp -r {folder / 'kept'} {folder / 'copy'} && sync -f {folder / 'copy'}"],
        "inspect": [drop, "inspect", str(source)],
    }
    if arguments.mergekit:
        kept = layers - layers // 2
        text = f"""merge_method: passthrough
dtype: bfloat16
slices:
  - sources:
      - model: {source}
        layer_range: [0, {kept}]
"""
        (folder / "merge.yaml").write_text(text)
        found["mergekit"] = [arguments.mergekit, str(folder / "merge.yaml"), str(folder / "merged"), "--lazy-unpickle"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=8)
    parser.add_argument("--shards", type=int, help="how many; by 2 GB if left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--mergekit", help="its command in an environment of its own")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="streaming-") as scratch:
        folder = Path(scratch)
        source = folder / "source"
        layers = make_checkpoint(source, arguments.gigabytes * 1e9, arguments.shards)
        todo = commands(arguments, folder, source, layers)
        measure(todo["depthprune"])  # warms the disk's cache, and makes what cp copies
        (folder / "out").rename(folder / "kept")
        found: dict[str, list[Measured]] = {name: [] for name in todo}
        for number in range(arguments.rounds):
            for name, command in todo.items():
                found[name].append(measure(command))
                print(f"round {number + 1}: {name} {found[name][-1].seconds:.2f} s", file=sys.stderr)
                for target in ("out", "copy", "merged"):
                    shutil.rmtree(folder / target, ignore_errors=True)
                os.sync()
        kept = sum(file.stat().st_size for file in (folder / "kept").iterdir())
        whole = sum(file.stat().st_size for file in source.iterdir())
        print(f"{layers} layers, {whole / 1e9:.2f} GB in {len(list(source.glob('*.safetensors')))} shards, ", end="")
        print(f"{kept / 1e9:.2f} GB kept")
        base = statistics.median(m.seconds for m in found["cp"])
        print(
            "| command | seconds (median, min–max) | against cp | peak memory of its processes, MB |\n|---|---|---|---|"
        )
        for name, runs in found.items():
            seconds = [run.seconds for run in runs]
            middle = statistics.median(seconds)
            peaks = " + ".join(str(peak) for peak in max((run.peaks_mb for run in runs), key=sum))
            print(f"| {name} | {middle:.2f} ({min(seconds):.2f}–{max(seconds):.2f}) | {middle / base:.2f}× | {peaks} |")


if __name__ == "__main__":
    main()
