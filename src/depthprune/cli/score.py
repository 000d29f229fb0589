"""`depthprune score`: how much each layer matters, on calibration data."""

from pathlib import Path
from typing import Annotated, Any

import typer

from depthprune.cli import options
from depthprune.cli.options import engine_options, quiet_libraries
from depthprune.scores.base import token_words

Method = Annotated[
    str, typer.Option("--method", "--metric", help="How to score; `depthprune list` names them.", show_default=False)
]
Objective = Annotated[
    str | None,
    typer.Option("--objective", help="For --method loss: loss, perplexity, kl, embedding or metric; else what fits."),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        help="first, last or mean (of all real tokens): what methods of one token look at; the sentence's by default.",
    ),
]
Plot = Annotated[bool, typer.Option("--plot", help="Draw the scores in the terminal.")]
ScoresFile = Annotated[
    Path | None, typer.Option("--output", help="Where to write the scores (JSON).", show_default=False)
]


def sample_lines(sampled: dict[str, Any], token: str) -> list[str]:
    """Describe what scores were computed on."""
    split = f", split {sampled['split']}" if sampled.get("split") else ""
    what = f"{sampled['samples']} {sampled['kind']}, {sampled['tokens']:,} tokens of {sampled['data']}{split}"
    return [*sampled.get("notes", ()), f"{what} ({sampled['fingerprint'][:19]}…), {token_words(token)}"]


def score(
    model: options.Model,
    method: Method,
    data: options.Data,
    output: ScoresFile = None,
    plot: Plot = False,
    figure: options.Figure = None,
    objective: Objective = None,
    token: Token = None,
    stack: options.StackName = None,
    dataset: options.Dataset = None,
    config: options.DataConfig = None,
    split: options.Split = None,
    text_columns: options.SampleColumns = None,
    label_column: options.SampleLabel = None,
    regression: options.Regression = False,
    classification: options.Classification = False,
    task_metric: options.SampleMetric = None,
    samples: options.Samples = None,
    length: options.Length = None,
    seed: options.SampleSeed = 42,
    batch_size: options.ForwardBatch = 16,
    dtype: options.Dtype = "auto",
    layerwise: options.Layerwise = False,
    cache_memory: options.CacheMemory = "2GB",
    cache_dir: options.CacheDir = None,
    device: options.Device = "auto",
    allow_pickle: options.AllowPickle = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Score the layers of a model on calibration data; `depthprune drop --scores FILE` then chooses by them.

    One forward pass gives all similarity scores, so the file has them all.
    """
    from depthprune.result_file import check_file, write_json
    from depthprune.scores import registry

    registry.get(method)
    engine = engine_options(batch_size, device, dtype, cache_memory, cache_dir, layerwise=layerwise)
    if output is not None:
        check_file(output)
    if figure is not None:
        from depthprune.reporting.drawings.canvas import check_figure

        check_figure(figure)

    sample = options.sample_options(
        *(data, dataset, config, split, samples, length, seed),
        text_columns=text_columns,
        label_column=label_column,
        regression=regression,
        classification=classification,
        task_metric=task_metric,
    )
    quiet_libraries()
    from depthprune.cli.display import console, progress
    from depthprune.cli.pictures import bars_picture, scores_table, triangle_picture, windows_table
    from depthprune.experiments.choosing.score import score_layers

    with progress() as show:
        scores = score_layers(
            model,
            method,
            sample,
            stack=stack,
            token=token,
            objective=objective,
            engine=engine,
            allow_pickle=allow_pickle,
            trust_remote_code=trust_remote_code,
            on_progress=show,
        )
    console.print(scores_table(scores))
    chosen = scores.of()
    if registry.get(method).selects == "window":
        console.print(windows_table(method, chosen))
    if plot:
        console.print(bars_picture(method, chosen), highlight=False)
        if chosen.windows:
            console.print(triangle_picture(chosen, colours=console.is_terminal))
    for line in sample_lines(scores.calibration, scores.token):
        console.print(line, highlight=False)
    if output is not None:
        write_json(output, scores.to_dict())
        console.print(f"scores: {output}", highlight=False, soft_wrap=True)
    if figure is not None:
        from depthprune.reporting.drawings.figures import draw_scores

        draw_scores(scores, figure)
        console.print(f"picture: {figure}", highlight=False, soft_wrap=True)
