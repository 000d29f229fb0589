"""The proof of a streamed cut, run as a child process: `python -m depthprune.surgery.prove REQUEST`.

It reads both configurations through their classes, which the copying process did not do, so that two readings must
agree: the new configuration must be the old one after the plan, and the model it builds must take exactly the kept
tensors. The new folder has headers over files without content; loading it on the meta device reads no weights.

Exit status: 0 proved; 2 refused, with the reason on standard error; 3 with entries on standard output that the new
config.json has to say, since the class would make them up from a formula that no longer fits (ModernBERT's
`layer_types` from `global_attn_every_n_layers`).
"""

import json
import sys
from pathlib import Path
from typing import Any

from depthprune.errors import CannotDropError, UserError
from depthprune.loading import load_config, model_class
from depthprune.plan import LayerPlan
from depthprune.sources import ModelSource
from depthprune.surgery.anatomy import INDEX_LISTS, PER_LAYER_LISTS
from depthprune.surgery.checkpoint import split_name
from depthprune.surgery.drop import match_plans
from depthprune.surgery.modules import probe_stacks, pruned_config
from depthprune.surgery.verify import check_drop

# What a configuration says about itself and not about the model.
UNCOMPARED = frozenset({"_name_or_path", "transformers_version"})


def prove(request: dict[str, Any]) -> dict[str, Any]:
    """Check a cut; see the module's docstring.

    Returns:
        Entries that the new config.json has to say; when there are any, the rest was not checked.

    Raises:
        UserError: the cut is not exact; the message says where.
    """
    plan = LayerPlan(request["depth"], tuple(request["dropped"]))
    old, new = (_source(Path(request[key]), request["trust_remote_code"]) for key in ("source", "new"))
    chosen, config = model_class(old)
    new_config = load_config(new)
    plans = match_plans(probe_stacks(chosen, config), plan)
    expected = pruned_config(config, plans)
    before, after = expected.to_dict(), new_config.to_dict()
    odd = sorted(k for k in set(before) | set(after) if k not in UNCOMPARED and before.get(k) != after.get(k))
    made_up = {k: before[k] for k in odd if k in (*PER_LAYER_LISTS, *INDEX_LISTS) and k not in old.config}
    if odd and set(made_up) == set(odd):
        return made_up
    if odd:
        raise CannotDropError(
            f"the edited config.json says {odd[0]} = {after.get(odd[0])!r} where the plan makes it "
            f"{before.get(odd[0])!r}; nothing was saved, please report it"
        )
    new_config.name_or_path = config.name_or_path  # models remember where they came from
    check_drop(chosen, config, new_config, plans)
    _check_loading(chosen, old, new)
    return {}


def _source(folder: Path, trust_remote_code: bool) -> ModelSource:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return ModelSource(str(folder), folder, None, config, trust_remote_code=trust_remote_code)


def _check_loading(chosen: Any, old: ModelSource, new: ModelSource) -> None:
    """Load both on the meta device: the new one may lack or leave over nothing that the old one did not."""
    before, after = (
        chosen.from_pretrained(source.path, device_map="meta", dtype="auto", output_loading_info=True)[1]
        for source in (old, new)
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        more = sorted(map(str, set(after[kind]) - set(before[kind])))
        if more:
            raise CannotDropError(f"the cut checkpoint has {kind.replace('_', ' ')}: {more[:3]}; nothing was saved")
        if before[kind] and kind != "unexpected_keys" and _in_a_stack(before[kind]):
            raise CannotDropError(
                f"the source itself has {kind.replace('_', ' ')}: {sorted(map(str, before[kind]))[:3]}"
            )


def _in_a_stack(names: Any) -> bool:
    return any(split_name(str(name)) is not None for name in names)


def main() -> int:
    """Read the request, prove it, say why not."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        more = prove(json.loads(sys.argv[1]))
    except UserError as error:
        sys.stderr.write(f"\n{error}\n")
        return 2
    if more:
        sys.stdout.write(f"\n{json.dumps(more)}\n")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
