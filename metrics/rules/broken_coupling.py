"""A layer of a transformer that is out of step with the layers that share its units or channels."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup
from layerwatch.metrics.outofstepfindings import RuleName, findings
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    yield from findings(examination, rules.broken_coupling, RuleName(RULE.name, RULE.group, plain=False))


RULE = Rule(
    name="broken_coupling",
    group=RuleGroup.WEIGHTS,
    title="a transformer's layer out of step with the others",
    explanation="""\
All layers of a transformer read from and write to one residual stream, and inside a block queries and keys,
values and output, the widening and the narrowing layer share their units. Training leaves them in step: channels
that one layer treats alike the others treat alike, units that are made large are read large, tokens that are
embedded alike are predicted alike, near positions are attended to. This holds for every seed, and is gone as soon
as one layer is permuted, random, transposed or turned in sign, which no spectrum shows.

Compared with the baseline, which may be of another seed, is how strong each coupling is, in standard deviations
from chance, never the weights. Each is evidence (a log likelihood ratio, at most 12) for or against its layers;
evidence of several adds up, and intact couplings speak for a layer. Critical from 7 (odds of a thousand to one), a
warning from 4; no healthy version of the calibration, another seed included, reached 4. Units that are found at the
place of another one, or with the other sign, count by themselves, against as many as healthy trainings have.
Signs of queries and keys, of values and output come and go from seed to seed while they are weak; they count only
where they were strong and turned.

In small transformers of several seeds: channels of the stream 5 to 27, units of queries and keys 9 to 39, hidden
units 12 to 44, tokens 20 to 23; after a permutation within 3 of zero.

Likely cause: a conversion between layouts (interleaved heads, fused queries, keys and values, transposed storage), a
failed shard, layers exchanged, another tokenizer's embedding.

What to do: look at the step that touched the named layer alone: convert it again from its
source, and look at the layout of heads. Where two layers are named,
the couplings cannot tell which of the two it is.

Cannot see: couplings that are weak in the baseline (values and output of the first block, networks trained
briefly), a quarter of the units out of place where units are hardly told apart (hidden units, heads of later
blocks), turned signs of queries or keys behind the first block, wrong scales, grouped queries, and names that
are not known.""",
    needs_baseline=True,
    check=check,
    is_statistical=True,
)
