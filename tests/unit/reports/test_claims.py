"""From evidence to verdicts: what is judged, what is not, and why."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reports.claiming import ClaimResult, judge_claims
from reports.evidence import gather
from reports.stats import Comparison, crossed_bootstrap, holm
from reports.verdict import Flag, Verdict
from reports.verdict_file import claim_json
from reports.wording import claim_sentence, secondary_sentences
from study.power import EnoughSeeds, TooFewDialogues, tost_power
from tests.unit.reports.records import CHOSEN, LORA, QLORA, SEEDS, ZERO_SHOT, Arm, claim, tuned_id, write_study


def judged(results: Path, **changes: Any) -> tuple[ClaimResult, ...]:
    return judge_claims(gather(write_study(results, **changes)))


def arms(qlora: Arm, lora: Arm = LORA) -> tuple[Arm, ...]:
    return ZERO_SHOT, lora, qlora


def test_arms_that_match_are_supported(tmp_path: Path) -> None:
    (result,) = judged(tmp_path)
    assert result.judgement.verdict is Verdict.SUPPORTED
    assert result.needs == ()
    assert result.notes == ()
    assert claim_sentence(result) == "qlora matches lora within ±1 points: supported."


def test_two_points_less_are_refuted(tmp_path: Path) -> None:
    (result,) = judged(tmp_path, arms=arms(Arm("qlora", mean=38.0)))
    assert result.judgement.verdict is Verdict.REFUTED
    assert result.judgement.flags == (Flag.REFUTED_WORSE,)
    comparison = result.metrics[0].comparison
    assert comparison is not None
    assert comparison.difference == pytest.approx(-2.0)


def test_two_points_more_are_no_match_either(tmp_path: Path) -> None:
    (result,) = judged(tmp_path, arms=arms(Arm("qlora", mean=42.0)))
    assert result.judgement.flags == (Flag.REFUTED_BETTER,)


def test_too_little_evidence_is_inconclusive_and_says_what_it_would_need(tmp_path: Path) -> None:
    (result,) = judged(tmp_path, residual=9.0)
    assert result.judgement.verdict is Verdict.INCONCLUSIVE
    (need,) = result.needs
    assert need.startswith("ROUGE-1: ")
    assert "seeds an arm" in need or "dialogues" in need


def test_too_few_seeds_get_no_verdict_with_the_counts(tmp_path: Path) -> None:
    (result,) = judged(tmp_path, seeds=(11, 12))
    assert result.judgement.verdict is Verdict.NO_VERDICT
    assert "2 seeds of the candidate and 2 of the reference" in result.judgement.reason


def test_one_seed_is_an_exception_of_compare_and_gets_no_verdict(tmp_path: Path) -> None:
    (result,) = judged(tmp_path, seeds=(11,))
    assert result.judgement.verdict is Verdict.NO_VERDICT
    assert result.metrics[0].comparison is None
    assert "seed" in result.judgement.reason


def test_an_arm_that_did_not_fit_has_no_verdict_and_its_counts(tmp_path: Path) -> None:
    (result,) = judged(tmp_path, arms=arms(Arm("qlora", statuses=dict.fromkeys(SEEDS, "out_of_memory"))))
    assert result.judgement.verdict is Verdict.NO_VERDICT
    assert result.judgement.reason == "no verdict: qlora has no completed test run (5 out_of_memory)"


def test_a_missing_seed_is_told_beside_the_verdict(tmp_path: Path) -> None:
    (result,) = judged(tmp_path, arms=arms(Arm("qlora", statuses={13: "diverged"})))
    assert result.judgement.verdict is Verdict.SUPPORTED
    assert result.notes == ("qlora: planned seeds without a score: 13 (diverged)",)
    assert (result.seeds["qlora"].planned, result.seeds["qlora"].scored) == (5, 4)
    assert tuned_id("qlora", 13) not in result.run_ids


def test_an_arm_from_another_gpu_has_no_verdict_and_says_why(tmp_path: Path) -> None:
    (result,) = judged(tmp_path, arms=arms(Arm("qlora", gpu="Other GPU")))
    assert result.judgement.verdict is Verdict.NO_VERDICT
    assert "not comparable with the rest: device Other GPU" in result.judgement.reason


def test_arms_scored_on_different_dialogues_are_not_compared(tmp_path: Path) -> None:
    (result,) = judged(tmp_path, arms=arms(Arm("qlora", examples="other")))
    assert result.judgement.verdict is Verdict.NO_VERDICT
    assert "different dialogues (40 and 40)" in result.judgement.reason


def test_random_weights_have_no_scores_to_judge(tmp_path: Path) -> None:
    (result,) = judged(tmp_path, weights="random")
    assert result.judgement.verdict is Verdict.NO_VERDICT
    assert "random weights, which have no scores" in result.judgement.reason


def test_nothing_is_judged_before_the_freeze(tmp_path: Path) -> None:
    (result,) = judged(tmp_path, frozen=False)
    assert result.judgement.verdict is Verdict.NO_VERDICT
    assert "not frozen yet" in result.judgement.reason
    assert claim_json(result)["margin"] is None


def test_an_old_protocol_is_never_judged_whatever_its_numbers(tmp_path: Path) -> None:
    (result,) = judged(tmp_path, protocol="seed")
    assert result.judgement.verdict is Verdict.NO_VERDICT
    assert "old protocol" in result.judgement.reason


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"margin": 0.0}, "margin 0.0 must be finite and above 0"),
        ({"margin": -1.0}, "margin -1.0 must be finite and above 0"),
        ({"metrics": ()}, "names no metric"),
        ({"metrics": ("rouge9",)}, "no claim can be about 'rouge9'"),
        ({"reference": "gone"}, "gone is no arm of the grid any more"),
    ],
)
def test_a_claim_that_cannot_be_computed_fails_closed(tmp_path: Path, changes: dict[str, object], why: str) -> None:
    (result,) = judged(tmp_path, claims=(claim(**changes),))
    assert result.judgement.verdict is Verdict.NO_VERDICT
    assert why in result.judgement.reason


def test_every_metric_must_pass(tmp_path: Path) -> None:
    (result,) = judged(tmp_path, claims=(claim(metrics=("rouge1", "rouge2", "rougeL")),))
    assert result.judgement.verdict is Verdict.SUPPORTED
    assert [item.metric for item in result.metrics] == ["rouge1", "rouge2", "rougeL"]


def test_several_claims_on_one_reference_are_adjusted_after_holm(tmp_path: Path) -> None:
    both = (claim(), claim(name="int8-matches-lora", candidate="int8"))
    results = judged(tmp_path, claims=both, arms=(*arms(QLORA), Arm("int8", mean=39.5)))
    raw = [result.metrics[0].p_tost for result in results]
    assert None not in raw
    expected = holm([p for p in raw if p is not None])
    assert tuple(result.metrics[0].adjusted_p for result in results) == expected
    assert expected[0] == 2 * (raw[0] or 0.0)


def test_an_arm_that_failed_does_not_make_it_easier_for_the_others(tmp_path: Path) -> None:
    both = (claim(), claim(name="int8-matches-lora", candidate="int8"))
    failed = Arm("int8", statuses=dict.fromkeys(SEEDS, "failed"))
    qlora, int8 = judged(tmp_path, claims=both, arms=(*arms(QLORA), failed))
    assert qlora.metrics[0].adjusted_p == 2 * (qlora.metrics[0].p_tost or 0.0)
    assert int8.judgement.verdict is Verdict.NO_VERDICT


def test_a_claim_that_stands_alone_is_not_adjusted(tmp_path: Path) -> None:
    (result,) = judged(tmp_path)
    assert result.metrics[0].adjusted_p is None


def test_the_frozen_margin_is_judged_and_a_change_afterwards_is_told(tmp_path: Path) -> None:
    wider = {"qlora-matches-lora": "fixed: 5 points"}
    (result,) = judged(tmp_path, arms=arms(Arm("qlora", mean=38.0)), margins=wider)
    assert result.judgement.verdict is Verdict.REFUTED
    assert result.notes == (
        "the grid's margin was changed after the freeze (now fixed: 5 points); the frozen one is judged",
    )


def test_a_claim_added_after_the_freeze_is_exploratory(tmp_path: Path) -> None:
    (result,) = judged(tmp_path, claims=(claim(margin_rule="fixed: 1 points (added after the freeze)"),))
    assert result.exploratory
    assert "exploratory" in claim_sentence(result)
    assert result.notes == ("the claim was added after the freeze: exploratory",)


def test_a_confidence_that_the_verdict_does_not_use_is_told(tmp_path: Path) -> None:
    (result,) = judged(tmp_path, claims=(claim(confidence=0.5),))
    assert "the verdict is always the 90% interval's" in result.notes[0]


def test_a_winner_at_the_edge_of_its_space_is_told(tmp_path: Path) -> None:
    (result,) = judged(tmp_path, edges=("rank high",))
    assert [note.partition(":")[0] for note in result.notes] == ["qlora", "lora"]
    assert "rank high" in result.notes[0]


def test_drop_in_runs_at_the_references_hyperparameters_are_a_secondary_comparison(tmp_path: Path) -> None:
    asked = (claim(drop_in=True),)
    (result,) = judged(tmp_path, claims=asked, drop_in={(4, 16, 1e-3): 20.0, CHOSEN: 39.0})
    found = result.drop_in["rouge1"]
    assert isinstance(found, Comparison)
    assert found.difference == pytest.approx(-1.0)
    assert secondary_sentences(result)[1].startswith(
        "ROUGE-1 at the hyperparameters of lora (secondary): difference -1.00 points, 90% interval ["
    )
    # The verdict stays that of tuned against tuned.
    assert result.judgement.verdict is Verdict.SUPPORTED


def test_a_drop_in_that_was_never_run_says_so(tmp_path: Path) -> None:
    (result,) = judged(tmp_path, claims=(claim(drop_in=True),))
    assert "no completed drop-in run" in str(result.drop_in["rouge1"])


def test_retention_is_the_share_of_the_references_gain_over_its_own_zero_shot_model(tmp_path: Path) -> None:
    (result,) = judged(tmp_path, arms=arms(Arm("qlora", mean=38.2)))
    # Zero-shot 22, reference 40, candidate 38.2.
    assert result.retention["rouge1"].ratio == pytest.approx(16.2 / 18.0)
    (said,) = secondary_sentences(result)
    assert said.startswith("ROUGE-1: keeps 90.0% of the gain of lora over its zero-shot model (95% interval ")


def test_where_the_reference_gains_nothing_no_share_of_it_is_told(tmp_path: Path) -> None:
    (result,) = judged(tmp_path, arms=(Arm("zero-shot", method="none", mean=41.0, zero_shot=None), LORA, QLORA))
    assert secondary_sentences(result) == [
        "ROUGE-1: lora gains nothing over its zero-shot model, so there is no gain to keep"
    ]


def test_a_claims_json_holds_its_numbers_and_the_runs_behind_them(tmp_path: Path) -> None:
    (result,) = judged(tmp_path)
    content = claim_json(result)
    assert content["verdict"] == "supported"
    assert (content["margin"], content["dialogues"]) == (1.0, 40)
    assert content["seeds"]["qlora"] == {"planned": 5, "scored": 5, "missing": {}}
    metric = content["metrics"]["rouge1"]
    assert metric["low95"] < metric["low90"] < metric["difference"] < metric["high90"] < metric["high95"]
    assert content["smallest_margin"] == pytest.approx(max(-metric["low90"], metric["high90"]), abs=1e-7)
    assert set(metric["components"]) == {"sigma_seed", "sigma_residual", "sigma_item"}
    assert content["run_ids"] == [tuned_id(arm, seed) for arm in ("qlora", "lora") for seed in SEEDS]


# --- what stands beside a verdict ---


def test_one_dialogue_gets_no_verdict_and_says_how_many_there_are(tmp_path: Path) -> None:
    (result,) = judged(tmp_path, dialogues=1)
    assert result.judgement.verdict is Verdict.NO_VERDICT
    assert "candidate has 5 seeds and 1 dialogues" in result.judgement.reason
    assert (result.metrics[0].power, result.metrics[0].needed, result.metrics[0].bootstrap) == (None, None, None)
    assert result.retention == {}


def test_constant_scores_are_judged_by_the_difference_alone(tmp_path: Path) -> None:
    constant = {"claims": (claim(metrics=("rouge2",)),), "residual": 0.0}
    (same,) = judged(tmp_path / "a", **constant)
    (other,) = judged(tmp_path / "b", arms=arms(Arm("qlora", mean=38.5)), **constant)
    assert same.judgement.verdict is Verdict.SUPPORTED
    assert same.judgement.smallest_margin == pytest.approx(0.0, abs=1e-9)
    assert other.judgement.flags == (Flag.REFUTED_WORSE,)
    assert (same.metrics[0].power, same.metrics[0].needed) == (1.0, EnoughSeeds(seeds=3, advised=3, power=1.0))


def test_each_metric_has_its_cross_check_and_the_power_of_its_design(tmp_path: Path) -> None:
    evidence = gather(write_study(tmp_path, arms=arms(Arm("qlora", statuses={13: "diverged"})), residual=6.0))
    (result,) = judge_claims(evidence)
    (item,) = result.metrics
    qlora, lora = (arm.scored for arm in evidence.arms[:0:-1])
    assert qlora is not None
    assert lora is not None
    assert item.bootstrap is not None
    assert item.bootstrap == crossed_bootstrap(
        qlora.scores["rouge1"],
        lora.scores["rouge1"],
        resamples=item.bootstrap.resamples,
        seed=item.bootstrap.seed,
        confidence=0.90,
    )
    assert item.comparison is not None
    parts = item.comparison.components
    assert item.power == tost_power(
        4,
        40,
        1.0,
        seeds_reference=5,
        sigma_seed=parts.sigma_seed,
        sigma_residual=parts.sigma_residual,
        sigma_item=parts.sigma_item,
    )


def test_a_bootstrap_that_lies_elsewhere_is_told_and_decides_nothing(tmp_path: Path) -> None:
    # Without seed effects the bootstrap counts the residual up to three times: too wide for this margin.
    (result,) = judged(tmp_path, residual=6.0)
    assert result.judgement.verdict is Verdict.SUPPORTED
    (note,) = result.notes
    assert note.startswith("ROUGE-1: the bootstrap, a cross-check that does not decide, has the 90% interval [")
    assert note.endswith("which lies across the margin")
    assert result.metrics[0].bootstrap is not None
    assert judged(tmp_path)[0].notes == ()


def test_the_file_holds_the_cross_check_the_power_and_what_more_would_be_needed(tmp_path: Path) -> None:
    (enough,) = judged(tmp_path / "a", residual=9.0)
    content = claim_json(enough)["metrics"]["rouge1"]
    needed = enough.metrics[0].needed
    assert isinstance(needed, EnoughSeeds)
    assert content["needed"] == {"seeds": needed.advised, "power": round(needed.power, 8), "dialogues": None}
    assert content["bootstrap"]["low"] < content["difference"] < content["bootstrap"]["high"]
    assert (content["bootstrap"]["resamples"], content["bootstrap"]["confidence"]) == (2000, 0.9)
    assert content["power"] == round(enough.metrics[0].power or 0.0, 8)
    (withheld,) = judged(tmp_path / "b", seeds=(11,))
    nothing = claim_json(withheld)["metrics"]["rouge1"]
    assert (nothing["bootstrap"], nothing["power"], nothing["needed"]) == (None, None, None)


def test_where_no_number_of_seeds_is_enough_the_dialogues_are_told(tmp_path: Path) -> None:
    (result,) = judged(tmp_path)
    hopeless = replace(result.metrics[0], needed=TooFewDialogues(dialogues=1234))
    content = claim_json(replace(result, metrics=(hopeless,)))["metrics"]["rouge1"]
    assert content["needed"] == {"seeds": None, "power": None, "dialogues": 1234}
