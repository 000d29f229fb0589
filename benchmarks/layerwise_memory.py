"""Score a model larger than memory: `depthprune score --layerwise` under a memory limit, against reading it once.

A Llama of random float32 weights is written; it is read once, it is scored in memory without a limit, and it is scored
one layer at a time in a memory cgroup (version 1, as root; or `systemd-run` where there is version 2). What is compared
is the time of the last with reading once plus the compute, which is a plain forward over the same batches.

    python benchmarks/layerwise_memory.py --tokenizer MODEL --data TEXT --gigabytes 6 --limit-gigabytes 2
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

HIDDEN, WIDE, HEADS, VOCABULARY = 2048, 5632, 16, 32000
CGROUP = Path("/sys/fs/cgroup/memory")


def write_model(folder: Path, num_bytes: float, tokenizer: Path) -> int:
    """Write a checkpoint of random weights, a shard for each few layers; returns the number of layers."""
    layer_bytes = 4 * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * WIDE)
    layers = max(2, round((num_bytes - 8 * VOCABULARY * HIDDEN) / layer_bytes))
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": WIDE,
        "num_hidden_layers": layers, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
        "vocab_size": VOCABULARY, "max_position_embeddings": 2048, "tie_word_embeddings": False, "dtype": "float32",
    }  # fmt: skip
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / file, folder)
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.02

    index: dict[str, str] = {}

    def write(name: str, tensors: dict[str, torch.Tensor]) -> None:
        save_file(tensors, folder / name, {"format": "pt"})
        index.update(dict.fromkeys(tensors, name))

    for i in range(layers):
        at = f"model.layers.{i}"
        tensors = {f"{at}.self_attn.{x}_proj.weight": random(HIDDEN, HIDDEN) for x in "qkvo"}
        tensors |= {f"{at}.mlp.{x}_proj.weight": random(WIDE, HIDDEN) for x in ("gate", "up")}
        tensors |= {f"{at}.mlp.down_proj.weight": random(HIDDEN, WIDE)}
        tensors |= {f"{at}.{x}_layernorm.weight": torch.ones(HIDDEN) for x in ("input", "post_attention")}
        write(f"layer-{i}.safetensors", tensors)
    ends = {f"{x}.weight": random(VOCABULARY, HIDDEN) for x in ("model.embed_tokens", "lm_head")}
    write("ends.safetensors", {**ends, "model.norm.weight": torch.ones(HIDDEN)})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return layers


def limited(command: list[str], limit: int) -> tuple[float, int, int]:
    """Run a command under a memory limit; returns seconds, peak bytes and the exit status."""
    start = time.perf_counter()
    if os.access(CGROUP, os.W_OK) and (CGROUP / "memory.limit_in_bytes").exists():
        group = CGROUP / f"depthprune-{os.getpid()}"
        group.mkdir()
        try:
            (group / "memory.limit_in_bytes").write_text(str(limit))
            done = subprocess.run(
                ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh", *command], check=False
            )
            peak = int((group / "memory.max_usage_in_bytes").read_text())
            usage = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            print(
                f"the group's peak is {peak / 1e9:.2f} GB, page cache counted; left: {int(usage['cache']) / 1e9:.2f} GB"
            )
        finally:
            (group / "memory.force_empty").write_text("1")
            group.rmdir()
    else:
        done = subprocess.run(
            ["systemd-run", "--scope", "-q", "-p", f"MemoryMax={limit}", "-p", "MemorySwapMax=0", *command], check=False
        )
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return time.perf_counter() - start, peak, done.returncode


def forget(folder: Path) -> None:
    """Take files out of the page cache: pages that this process put there would not count against the limit."""
    for file in folder.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def forward_seconds(model: Path, data: str, samples: int, length: int, batch_size: int) -> float:
    """Time a plain forward through the layers in memory, over the batches that are scored."""
    from depthprune.experiments.choosing.engine import Engine
    from depthprune.experiments.choosing.score import prepare
    from depthprune.sources import locate
    from depthprune.tasks.data.calibration import CalibrationOptions

    sample = CalibrationOptions(data, samples=samples, length=length)
    prepared = prepare(locate(str(model)), sample, Engine(batch_size=batch_size, device="cpu"), None)
    body = prepared.model.model  # the scores need no head
    batches = list(prepared.batches(predict=False).inputs)
    with torch.inference_mode():
        body(**batches[0])
        start = time.perf_counter()
        for batch in batches:
            body(**batch)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--gigabytes", type=float, default=6)
    parser.add_argument("--limit-gigabytes", type=float, default=2)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        model, states = Path(folder) / "model", Path(folder) / "states"
        layers = write_model(model, arguments.gigabytes * 1e9, arguments.tokenizer)
        size = sum(file.stat().st_size for file in model.iterdir())
        print(
            f"{layers} layers, {size / 1e9:.2f} GB, {arguments.samples} blocks of {arguments.length} tokens", flush=True
        )
        sample = ["--samples", str(arguments.samples), "--length", str(arguments.length)]
        sample += ["--batch-size", str(arguments.batch_size)]
        command = [str(Path(sys.executable).with_name("depthprune")), "score", str(model), "--metric", "angular"]
        command += ["--data", arguments.data, *sample, "--device", "cpu"]
        forget(model)
        files = [str(file) for file in sorted(model.glob("*.safetensors"))]
        read, _, _ = limited(["sh", "-c", 'cat "$@" > /dev/null', "sh", *files], int(arguments.limit_gigabytes * 1e9))
        forget(model)
        by_layer = [*command, "--layerwise", "--cache-memory", "200MB", "--cache-dir", str(states)]
        by_layer += ["--output", str(Path(folder) / "one.json")]
        seconds, peak, status = limited(by_layer, int(arguments.limit_gigabytes * 1e9))
        compute = forward_seconds(model, arguments.data, arguments.samples, arguments.length, arguments.batch_size)
        print(f"exit {status}; peak resident memory {peak / 1e9:.2f} GB")
        print(f"read once {read:.1f} s, compute {compute:.1f} s, layer by layer {seconds:.1f} s: "
              f"{seconds / (read + compute):.2f}x of their sum")  # fmt: skip
        subprocess.run([*command, "--output", str(Path(folder) / "all.json")], check=True, stdout=subprocess.DEVNULL)
        one, whole = (json.loads((Path(folder) / name).read_text())["metrics"] for name in ("one.json", "all.json"))
        print("the scores are equal, bit for bit" if one == whole else "the scores DIFFER")


if __name__ == "__main__":
    main()
