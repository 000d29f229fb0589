"""Runs as values; the fields are the options of commands and sweeps. No torch."""

from depthprune.specs.healing import AS_STEPS as AS_STEPS
from depthprune.specs.healing import PRECISIONS as PRECISIONS
from depthprune.specs.healing import STEP_ENTRIES as STEP_ENTRIES
from depthprune.specs.healing import Execution as Execution
from depthprune.specs.healing import HealSpec as HealSpec
from depthprune.specs.healing import Schedule as Schedule
from depthprune.specs.healing import Step as Step
from depthprune.specs.healing import heal_of as heal_of
from depthprune.specs.run import DropSpec as DropSpec
from depthprune.specs.run import EvalSpec as EvalSpec
from depthprune.specs.run import RunSpec as RunSpec
from depthprune.specs.run import canonical_json as canonical_json
from depthprune.specs.run import run_spec_of as run_spec_of
