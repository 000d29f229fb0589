"""Edit entries of a configuration that are formulas over the layers for a drop. No torch.

A formula is solved again: one of the same kind that gives the kept layers the same values as the old one. If there is
none, the entry is unchanged, and the check on the meta device refuses the plan.
"""

from collections.abc import Iterator
from math import inf, nextafter, sqrt

from depthprune.errors import CannotDropError
from depthprune.plan import LayerPlan
from depthprune.surgery.config.entries import PERIODS, Fields, edit_entries, is_int, state_taps, suffix


def edit(fields: Fields, depth_key: str, plan: LayerPlan, *, head: str = "") -> None:
    """Edit the entries about a stack in the configuration with its depth, in place.

    Args:
        fields: the configuration.
        depth_key: the entry that holds the depth.
        plan: the layers to drop.
        head: name of the model class of the configuration; empty for a part of another model.

    Raises:
        CannotDropError: if an entry cannot express what the plan leaves; the message names the entry and the layer.
    """
    before = dict(fields)
    edit_entries(fields, depth_key, plan)
    for solve in _FORMULAS:
        solve(before, fields, plan)
    _features(before, fields, plan, head)


def _solve_periods(before: Fields, fields: Fields, plan: LayerPlan) -> None:
    """Find a period and an offset that give the kept layers the same values; if there are none, change nothing."""
    for period_key, offset_key in PERIODS:
        period, offset = before.get(period_key), before.get(offset_key)
        if not (isinstance(period, int) and isinstance(offset, int) and period):
            continue
        wanted = [i % period == offset for i in plan.kept]
        for new_period, new_offset in _periods(period, offset, len(wanted)):
            if [i % new_period == new_offset for i in range(len(wanted))] == wanted:
                fields[period_key], fields[offset_key] = new_period, new_offset
                break


def _periods(period: int, offset: int, depth: int) -> Iterator[tuple[int, int]]:
    yield period, offset
    for new_period in range(1, depth + 2):
        for new_offset in range(new_period):
            yield new_period, new_offset


def _sparse_step(before: Fields, fields: Fields, plan: LayerPlan) -> None:
    """Qwen's mixtures of experts: layer i is sparse where (i + 1) % decoder_sparse_step == 0, unless it is listed."""
    step, dense = before.get("decoder_sparse_step"), before.get("mlp_only_layers")
    if not isinstance(step, int) or step < 2 or not isinstance(dense, list | tuple):
        return
    fields["mlp_only_layers"] = [new for new, i in enumerate(plan.kept) if (i + 1) % step or i in dense]
    fields["decoder_sparse_step"] = 1


def _types_of_gpt_neo(before: Fields, fields: Fields, plan: LayerPlan) -> None:
    """GPT-Neo recomputes its list from run lengths whenever it is loaded."""
    if before.get("attention_types") is None:
        return
    kinds = [kind for types, repeat in before["attention_types"] for _ in range(repeat) for kind in types]
    if len(kinds) == plan.depth:
        fields["attention_types"] = [[[kinds[i]], 1] for i in plan.kept]


def _tiled_blocks(before: Fields, fields: Fields, plan: LayerPlan) -> None:
    """RecurrentGemma tiles its block types over the depth: a list of full length disables the tiling."""
    kinds = before.get("block_types")
    if isinstance(kinds, list | tuple) and kinds:
        fields["block_types"] = [kinds[i % len(kinds)] for i in plan.kept]


def _scale_depth(before: Fields, fields: Fields, plan: LayerPlan) -> None:
    """MiniCPM-3 multiplies its residual branches by scale_depth / sqrt(depth): keep that factor.

    Exactly if a float64 can represent it, else to the last bit of the float32 that tensors are multiplied with.
    """
    scale = before.get("scale_depth")
    if not isinstance(scale, int | float) or isinstance(scale, bool):
        return
    wanted, root = scale / sqrt(plan.depth), sqrt(len(plan.kept))
    near = wanted * root
    candidates = (near, nextafter(near, inf), nextafter(near, -inf))
    fields["scale_depth"] = next((c for c in candidates if c / root == wanted), near)


def _features(before: Fields, fields: Fields, plan: LayerPlan, head: str) -> None:
    """Rename the hidden states that a backbone returns: `stem` is the input of the first layer, `stage3` the output of
    the third.

    BEiT and Data2Vec-Vision for semantic segmentation number them from one: their `out_indices` 3 reads state 2.
    """
    names, taken = before.get("stage_names"), before.get("out_indices")
    first = int(before.get("model_type") in ("beit", "data2vec-vision") and head.endswith("ForSemanticSegmentation"))
    named = isinstance(names, list | tuple) and len(names) == plan.depth + 1
    if not isinstance(taken, list | tuple) or not (named or first):
        return
    states = state_taps("out_indices", [index - first for index in taken], plan)
    fields["out_indices"] = [state + first for state in states]
    if isinstance(names, list | tuple) and named:
        fields["stage_names"] = list(names[: len(plan.kept) + 1])
        fields["out_features"] = [fields["stage_names"][i] for i in fields["out_indices"]]


def _regular_experts(before: Fields, fields: Fields, plan: LayerPlan) -> None:
    """ERNIE-4.5: layer i is sparse where (i + 1) % interval == 0, from a first such layer to a last."""
    interval, first, last = (before.get(f"moe_layer_{what}") for what in ("interval", "start_index", "end_index"))
    if not isinstance(interval, int) or not isinstance(first, int) or not isinstance(last, int):
        return
    last = plan.depth - 1 if last == -1 else last
    sparse = [new for new, i in enumerate(plan.kept) if (i + 1) % interval == 0 and first <= i <= last]
    for step in (interval, *range(1, len(plan.kept) + 1)):
        if sparse and [i for i in range(sparse[0], sparse[-1] + 1) if (i + 1) % step == 0] == sparse:
            found = {"interval": step, "start_index": sparse[0], "end_index": sparse[-1]}
            fields.update({f"moe_layer_{what}": value for what, value in found.items()})
            return


def _query_blocks(before: Fields, fields: Fields, plan: LayerPlan) -> None:
    """EoMT passes its queries to the last `num_blocks` layers; elsewhere the same entry is a depth."""
    if str(before.get("model_type")).startswith(("eomt", "videomt")) and is_int(before.get("num_blocks")):
        fields["num_blocks"] = suffix("num_blocks", before["num_blocks"], plan)
        if not fields["num_blocks"]:
            raise CannotDropError(f"the last {before['num_blocks']} layers (num_blocks) receive the queries; keep one")


def _cache_of_a_decoder(before: Fields, fields: Fields, plan: LayerPlan) -> None:
    """Add the number of cache layers for the decoder of T5 and similar models, if the encoder has fewer.

    transformers takes the depth of the cache from the encoder, unless there is an entry `decoder_layers`, which these
    classes do not define (`PreTrainedConfig.get_text_config`).
    """
    encoder, decoder = fields.get("num_layers"), fields.get("num_decoder_layers")
    if not before.get("is_encoder_decoder") or not isinstance(encoder, int) or not isinstance(decoder, int):
        return
    if "decoder_layers" in before or encoder < decoder:
        fields["decoder_layers"] = decoder


_FORMULAS = (
    _cache_of_a_decoder,
    _solve_periods,
    _sparse_step,
    _types_of_gpt_neo,
    _tiled_blocks,
    _scale_depth,
    _regular_experts,
    _query_blocks,
)
